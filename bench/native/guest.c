/*
 * The measure for a guest whose memory comes by userfaultfd: a VMM as one writes it in C, a thread for each vCPU and
 * one that serves faults, a page each by UFFDIO_COPY, reading blocking. It runs the same guest as the library does,
 * from the same image. It reads lines from standard input and answers each `run` with one line of JSON.
 *
 * Arguments: the image (a file), bytes of it that are there from the start, pages of each vCPU, vCPUs; then where in
 * the guest its page tables, code, first stack and counter are.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define MOST_VCPUS 8
#define DONE_PORT 0x80

static uint64_t low, pages, tables, code, stacks, counter;
static unsigned vcpus;
static uint8_t *image, *memory;
static int uffd, kvm;
static pthread_barrier_t start;

__attribute__((noreturn)) static void fail(const char *what) {
  printf("{\"error\":\"%s: %s\"}\n", what, strerror(errno));
  exit(1);
}

static uint64_t length(void) { return low + vcpus * pages * PAGE; }

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int open_userfaultfd(void) {
  int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  int fd = device >= 0 ? ioctl(device, _IO(0xAA, 0x00), O_CLOEXEC) : (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (fd < 0) fail("userfaultfd");
  if (device >= 0) close(device);
  struct uffdio_api api = {.api = UFFD_API, .features = 0};
  if (ioctl(fd, UFFDIO_API, &api) != 0) fail("UFFDIO_API");
  return fd;
}

static void copy(uint64_t offset, uint64_t bytes) {
  struct uffdio_copy copy = {.dst = (uintptr_t)memory + offset, .src = (uintptr_t)image + offset, .len = bytes};
  if (ioctl(uffd, UFFDIO_COPY, &copy) == 0) return;
  if (errno != EEXIST) fail("UFFDIO_COPY");
  struct uffdio_range range = {.start = (uintptr_t)memory + offset, .len = bytes};
  if (ioctl(uffd, UFFDIO_WAKE, &range) != 0) fail("UFFDIO_WAKE");
}

/* Serves until it is cancelled, in read(2). */
static void *serve(void *unused) {
  (void)unused;
  for (;;) {
    struct uffd_msg messages[64];
    ssize_t bytes = read(uffd, messages, sizeof messages);
    if (bytes < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      fail("read");
    }
    for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
      if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
      copy((messages[i].arg.pagefault.address & ~(uint64_t)(PAGE - 1)) - (uintptr_t)memory, PAGE);
    }
  }
}

struct vcpu {
  int fd;
  struct kvm_run *run;
  uint64_t sum;
};

static struct kvm_segment segment(uint16_t selector, uint8_t type, uint8_t is_long) {
  return (struct kvm_segment){.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .dpl = 3,
                              .db = !is_long, .s = 1, .l = is_long, .g = 1};
}

static void set_cpuid(int fd) {
  struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[3];
  } cpuid = {.head = {.nent = 3},
             .entries = {{.function = 0x80000000, .eax = 0x80000008},
                         {.function = 0x80000001, .edx = 1u << 29 | 1u << 20},
                         {.function = 0x80000008, .eax = 48u << 8 | 52u}}};
  if (ioctl(fd, KVM_SET_CPUID2, &cpuid) != 0) fail("KVM_SET_CPUID2");
}

/* Long mode at CPL 3 with I/O allowed. */
static void restore(struct vcpu *vcpu, int vm, unsigned index, int run_bytes) {
  vcpu->fd = ioctl(vm, KVM_CREATE_VCPU, index);
  if (vcpu->fd < 0) fail("KVM_CREATE_VCPU");
  vcpu->run = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
  if (vcpu->run == MAP_FAILED) fail("mmap of a vCPU");
  set_cpuid(vcpu->fd);
  struct kvm_sregs special;
  if (ioctl(vcpu->fd, KVM_GET_SREGS, &special) != 0) fail("KVM_GET_SREGS");
  special.cs = segment(0x1b, 11, 1);
  special.ds = special.es = special.fs = special.gs = special.ss = segment(0x23, 3, 0);
  special.cr0 = 0x80000011;
  special.cr3 = tables;
  special.cr4 = 0x20;
  special.efer = 0x500;
  if (ioctl(vcpu->fd, KVM_SET_SREGS, &special) != 0) fail("KVM_SET_SREGS");
  struct kvm_regs registers = {.rip = code, .rflags = 0x3002, .rsp = stacks + (index + 1) * PAGE,
                               .rdi = low + index * pages * PAGE, .rsi = pages, .rdx = counter};
  if (ioctl(vcpu->fd, KVM_SET_REGS, &registers) != 0) fail("KVM_SET_REGS");
}

static void *run_vcpu(void *argument) {
  struct vcpu *vcpu = argument;
  pthread_barrier_wait(&start);
  while (ioctl(vcpu->fd, KVM_RUN, 0) != 0)
    if (errno != EINTR && errno != EAGAIN) fail("KVM_RUN");
  if (vcpu->run->exit_reason != KVM_EXIT_IO || vcpu->run->io.port != DONE_PORT) {
    errno = EPROTO;
    fail("the guest");
  }
  struct kvm_regs registers;
  if (ioctl(vcpu->fd, KVM_GET_REGS, &registers) != 0) fail("KVM_GET_REGS");
  vcpu->sum = registers.rax;
  return NULL;
}

static void map_memory(int vm) {
  memory = mmap(NULL, length(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  madvise(memory, length(), MADV_NOHUGEPAGE);
  uffd = open_userfaultfd();
  struct uffdio_register registration = {
      .range = {.start = (uintptr_t)memory, .len = length()}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(uffd, UFFDIO_REGISTER, &registration) != 0) fail("UFFDIO_REGISTER");
  struct kvm_userspace_memory_region slot = {.slot = 0, .memory_size = length(), .userspace_addr = (uintptr_t)memory};
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0) fail("KVM_SET_USER_MEMORY_REGION");
  copy(0, low);
}

static void run_once(void) {
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) fail("KVM_CREATE_VM");
  ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
  int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  map_memory(vm);
  struct vcpu all[MOST_VCPUS];
  pthread_t handler, threads[MOST_VCPUS];
  pthread_barrier_init(&start, NULL, vcpus + 1);
  if (pthread_create(&handler, NULL, serve, NULL) != 0) fail("pthread_create");
  for (unsigned i = 0; i < vcpus; i++) {
    restore(&all[i], vm, i, run_bytes);
    if (pthread_create(&threads[i], NULL, run_vcpu, &all[i]) != 0) fail("pthread_create");
  }
  uint64_t began = now_ns();
  pthread_barrier_wait(&start);
  uint64_t sum = 0;
  for (unsigned i = 0; i < vcpus; i++) {
    pthread_join(threads[i], NULL);
    sum += all[i].sum;
  }
  uint64_t took_ns = now_ns() - began;
  pthread_cancel(handler);
  pthread_join(handler, NULL);
  for (unsigned i = 0; i < vcpus; i++) {
    munmap(all[i].run, run_bytes);
    close(all[i].fd);
  }
  close(vm);
  close(uffd);
  munmap(memory, length());
  printf("{\"pages\":%" PRIu64 ",\"took_ns\":%" PRIu64 ",\"sum\":\"%016" PRIx64 "\"}\n", vcpus * pages, took_ns, sum);
}

int main(int count, char **arguments) {
  if (count != 9) {
    fprintf(stderr, "usage: %s <image> <low bytes> <pages> <vcpus> <tables> <code> <stacks> <counter>\n", arguments[0]);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  low = strtoull(arguments[2], NULL, 10);
  pages = strtoull(arguments[3], NULL, 10);
  vcpus = (unsigned)strtoul(arguments[4], NULL, 10);
  tables = strtoull(arguments[5], NULL, 10);
  code = strtoull(arguments[6], NULL, 10);
  stacks = strtoull(arguments[7], NULL, 10);
  counter = strtoull(arguments[8], NULL, 10);
  errno = EINVAL;
  if (vcpus < 1 || vcpus > MOST_VCPUS) fail("vcpus");
  int file = open(arguments[1], O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("open of the image");
  image = mmap(NULL, length(), PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
  if (image == MAP_FAILED) fail("mmap of the image");
  kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) fail("/dev/kvm");
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    errno = EINVAL;
    if (strcmp(line, "run\n") != 0) fail("command");
    run_once();
  }
  return 0;
}
