// SPDX-License-Identifier: GPL-2.0
/* The state machine, which the user-space twin compiles as well. */
#include "../core/graven_core.c"
