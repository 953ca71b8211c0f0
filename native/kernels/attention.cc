// Attention in the forms of com.microsoft and of the standard.
#include "kernels/attention_microsoft.h"

#include "attention.inc"
