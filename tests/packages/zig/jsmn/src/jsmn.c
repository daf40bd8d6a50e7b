#define JSMN_STRICT
#include "jsmn.h"
