// Attention in the forms of com.microsoft and of the standard.
#include "kernels/attention_group_query.h"
#include "kernels/attention_microsoft.h"
#include "kernels/attention_multi_head.h"
#include "kernels/attention_standard.h"

#include "attention.inc"
