#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H
#include <stddef.h>
#include <stdint.h>

uint64_t now_ns(void);

/* Private anonymous memory of base pages; NULL when there is none. */
void *map_pages(size_t length);

/* Memory filled from `seed`; NULL when there is none. */
void *make_snapshot(size_t length, uint64_t seed);

/* A sum over all words that depends on their order. */
uint64_t sum_words(const void *from, size_t length);

/* Binds the calling thread to a cpu; -1 leaves it alone. 0, or -1 with errno. */
int pin_thread(int cpu);

/*
 * Reads one byte of every page, once each, on a thread made for it, in ascending or in shuffled order;
 * how many nanoseconds that took, or 0 when it could not be done.
 */
uint64_t touch_pages(void *memory, uint32_t pages, uint32_t page_size, int shuffled, uint64_t seed, int cpu);

#endif
