// Elementary functions for float, double and vectors of them, without libm: namespace
// ortolan::math. NaN, infinities, denormals and signed zeros behave as in IEEE 754 and numpy.
#pragma once

#include "core/math_base.h"
#include "core/math_exp.h"
#include "core/math_log.h"
#include "core/math_trig.h"
