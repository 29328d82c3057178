/*
 * What jitd holds of the host's memory while nothing is to be compiled.
 *
 * Any thread, any time: nothing is lost that does not come back by itself.
 */
#ifndef POLYVISOR_JITD_FOOTPRINT_H
#define POLYVISOR_JITD_FOOTPRINT_H

/* Give back free memory of the heap, and the mappings of what was used of the program's and its
 * libraries' code: that is in the host's cache of files, for as long as the host has room, and is
 * mapped again page by page when it is run. */
void footprint_shrink(void);

#endif
