// Operators on images that are not worth one instruction set each: sampling, regions, rare pools.
#include "kernels/deform_conv.h"
#include "kernels/plain_pool.h"
#include "kernels/regions.h"
#include "kernels/sampling.h"

#include "vision.inc"
