/*
 * What both sides of a measurement share, so that only the handler differs: the snapshot that pages
 * come from, the thread that touches memory, and the sum that proves what it found there. Linked into
 * the C handler, and loaded into Node as a shared object.
 */
#define _GNU_SOURCE
#include "memory.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* splitmix64: fills and shuffles alike on both sides. */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void *map_pages(size_t length) {
  void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return NULL;
  madvise(at, length, MADV_NOHUGEPAGE);
  return at;
}

void *make_snapshot(size_t length, uint64_t seed) {
  uint64_t *words = map_pages(length);
  if (words == NULL) return NULL;
  for (size_t i = 0; i < length / 8; i++) words[i] = next_random(&seed);
  return words;
}

uint64_t sum_words(const void *from, size_t length) {
  const uint64_t *words = from;
  uint64_t sum = 0;
  for (size_t i = 0; i < length / 8; i++) sum = (sum << 1 | sum >> 63) ^ words[i];
  return sum;
}

int pin_thread(int cpu) {
  if (cpu < 0) return 0;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof set, &set);
}

struct touching {
  const volatile uint8_t *memory;
  const uint32_t *order;
  uint32_t pages;
  uint32_t page_size;
  int cpu;
  uint64_t took_ns;
};

static void *touch_all(void *argument) {
  struct touching *touching = argument;
  pin_thread(touching->cpu);
  uint64_t start = now_ns();
  for (uint32_t i = 0; i < touching->pages; i++) (void)touching->memory[(size_t)touching->order[i] * touching->page_size];
  touching->took_ns = now_ns() - start;
  return NULL;
}

uint64_t touch_pages(void *memory, uint32_t pages, uint32_t page_size, int shuffled, uint64_t seed, int cpu) {
  uint32_t *order = malloc((size_t)pages * sizeof *order);
  if (order == NULL) return 0;
  for (uint32_t i = 0; i < pages; i++) order[i] = i;
  for (uint32_t i = pages - 1; shuffled && i > 0; i--) {
    uint32_t j = (uint32_t)(next_random(&seed) % (i + 1));
    uint32_t kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  struct touching touching = {memory, order, pages, page_size, cpu, 0};
  pthread_t thread;
  if (pthread_create(&thread, NULL, touch_all, &touching) != 0) {
    free(order);
    return 0;
  }
  pthread_join(thread, NULL);
  free(order);
  return touching.took_ns;
}
