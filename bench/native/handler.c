/*
 * The measure for the library: a userfaultfd handler as one writes it in C, one thread and no policy.
 * It reads commands from standard input and answers each with one line of JSON:
 *
 *   block|spin random|ascending <seed> <handler cpu> <toucher cpu>
 *   bulk <bytes in one piece> <handler cpu>
 *
 * A cpu of -1 binds to none.
 *
 * Arguments: pages, page size, seed of the snapshot.
 */
#define _GNU_SOURCE
#include "memory.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int uffd;
static uint8_t *memory;
static uint8_t *snapshot;
static uint32_t pages;
static uint32_t page_size;

static void fail(const char *what) {
  printf("{\"error\":\"%s: %s\"}\n", what, strerror(errno));
  exit(1);
}

static int open_userfaultfd(void) {
  int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  /* USERFAULTFD_IOC_NEW; older headers lack it. */
  int fd = device >= 0 ? ioctl(device, _IO(0xAA, 0x00), O_CLOEXEC) : (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (fd < 0) fail("userfaultfd");
  if (device >= 0) close(device);
  return fd;
}

static size_t length(void) { return (size_t)pages * page_size; }

static void set_up(uint64_t seed) {
  memory = map_pages(length());
  snapshot = make_snapshot(length(), seed);
  if (memory == NULL || snapshot == NULL) fail("mmap");
  uffd = open_userfaultfd();
  struct uffdio_api api = {.api = UFFD_API, .features = 0};
  if (ioctl(uffd, UFFDIO_API, &api) != 0) fail("UFFDIO_API");
  struct uffdio_register registration = {
      .range = {.start = (uintptr_t)memory, .len = length()}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(uffd, UFFDIO_REGISTER, &registration) != 0) fail("UFFDIO_REGISTER");
}

static void copy(uint64_t offset, uint64_t bytes) {
  struct uffdio_copy copy = {
      .dst = (uintptr_t)memory + offset, .src = (uintptr_t)snapshot + offset, .len = bytes, .mode = 0};
  if (ioctl(uffd, UFFDIO_COPY, &copy) != 0) fail("UFFDIO_COPY");
}

/* Serves every page once: there is one toucher, and it touches each page once. */
static void *serve(void *argument) {
  pin_thread(*(int *)argument);
  for (uint32_t served = 0; served < pages;) {
    struct uffd_msg messages[64];
    ssize_t bytes = read(uffd, messages, sizeof messages);
    if (bytes < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      fail("read");
    }
    for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
      if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
      uint64_t offset = (messages[i].arg.pagefault.address & ~(uint64_t)(page_size - 1)) - (uintptr_t)memory;
      copy(offset, page_size);
      served++;
    }
  }
  return NULL;
}

static uint64_t run_faults(int spin, int shuffled, uint64_t seed, int handler_cpu, int toucher_cpu) {
  int flags = fcntl(uffd, F_GETFL);
  if (fcntl(uffd, F_SETFL, spin ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) != 0) fail("fcntl");
  pthread_t handler;
  if (pthread_create(&handler, NULL, serve, &handler_cpu) != 0) fail("pthread_create");
  uint64_t took_ns = touch_pages(memory, pages, page_size, shuffled, seed, toucher_cpu);
  if (took_ns == 0) fail("touch_pages");
  pthread_join(handler, NULL);
  return took_ns;
}

struct bulk {
  uint64_t piece;
  int cpu;
  uint64_t took_ns;
};

static void *copy_all(void *argument) {
  struct bulk *bulk = argument;
  pin_thread(bulk->cpu);
  uint64_t start = now_ns();
  for (uint64_t at = 0; at < length(); at += bulk->piece) {
    copy(at, bulk->piece < length() - at ? bulk->piece : length() - at);
  }
  bulk->took_ns = now_ns() - start;
  return NULL;
}

/* On a thread of its own, as the library does it: pages dropped by the copying thread come back cache-hot. */
static uint64_t run_bulk(uint64_t piece, int cpu) {
  struct bulk bulk = {piece, cpu, 0};
  pthread_t copier;
  if (pthread_create(&copier, NULL, copy_all, &bulk) != 0) fail("pthread_create");
  pthread_join(copier, NULL);
  return bulk.took_ns;
}

int main(int count, char **arguments) {
  if (count != 4) {
    fprintf(stderr, "usage: %s <pages> <page size> <seed>\n", arguments[0]);
    return 2;
  }
  pages = (uint32_t)strtoul(arguments[1], NULL, 10);
  page_size = (uint32_t)strtoul(arguments[2], NULL, 10);
  set_up(strtoull(arguments[3], NULL, 10));
  setvbuf(stdout, NULL, _IOLBF, 0);
  char line[256];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char mode[16], order[16];
    uint64_t seed, piece, took_ns;
    int handler_cpu, toucher_cpu;
    if (madvise(memory, length(), MADV_DONTNEED) != 0) fail("madvise");
    if (sscanf(line, "bulk %" SCNu64 " %d", &piece, &handler_cpu) == 2 && piece > 0 && piece % page_size == 0) {
      took_ns = run_bulk(piece, handler_cpu);
    } else if (sscanf(line, "%15s %15s %" SCNu64 " %d %d", mode, order, &seed, &handler_cpu, &toucher_cpu) == 5) {
      took_ns = run_faults(strcmp(mode, "spin") == 0, strcmp(order, "random") == 0, seed, handler_cpu, toucher_cpu);
    } else {
      errno = EINVAL;
      fail("command");
    }
    printf("{\"pages\":%u,\"took_ns\":%" PRIu64 ",\"sum\":\"%016" PRIx64 "\"}\n", pages, took_ns,
           sum_words(memory, length()));
  }
  return 0;
}
