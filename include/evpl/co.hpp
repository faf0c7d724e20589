#pragma once

// Coroutines on the callbacks of the core: straight-line code, one frame per coroutine, nothing allocated per operation.

#include "evpl/co_datagrams.hpp"
#include "evpl/co_join.hpp"
#include "evpl/co_run.hpp"
#include "evpl/co_stream.hpp"
#include "evpl/co_task.hpp"
