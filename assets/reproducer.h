/*
 * What every reproducer begins with: memory behind a userfaultfd, threads that access it, and the handler's verbs.
 * The program around it defines PAGES, TASKS, SHARED and MINOR first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFDIO_COPY_MODE_WP
#define UFFDIO_COPY_MODE_WP ((__u64)1 << 1)
#endif

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif
/* Linux 6.6 and 6.8 brought these; older headers do not have them. */
#ifndef UFFDIO_POISON
struct uffdio_poison { struct uffdio_range range; __u64 mode; __s64 updated; };
#define UFFDIO_POISON_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move { __u64 dst, src, len, mode; __s64 move; };
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#define FEATURE_MINOR_SHMEM (1ULL << 10)
#define FEATURE_WP_SHMEM (1ULL << 12)
#define FEATURE_POISON (1ULL << 14)
#define FEATURE_MOVE (1ULL << 16)

enum way { LOAD, STORE, SYSCALL, VM_READV, OTHER_MAPPING, DISCARD };

struct task {
	pthread_t thread;
	enum way way;
	long page, offset, length;
	uint8_t *seen;
	int started, ended, error;
};

static struct task tasks[TASKS];
static uint8_t *memory, *other, *buffer;
static long page_size;
static int uffd, file = -1, failures, changed[PAGES];

static void give_up(const char *what)
{
	fprintf(stderr, "cannot be tried here: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* Every word of the contents names its page, plus one, and its place in it; none is zero. */
static uint32_t word_of(long number, long at)
{
	return number ? (uint32_t)(number << 16 | (at & 0xffff)) : 0;
}

static void *run(void *argument)
{
	struct task *task = argument;
	uint8_t *at = memory + task->page * page_size + task->offset;
	struct iovec local = { task->seen, task->length }, remote = { at, task->length };
	int pipes[2];
	long got = 0;

	switch (task->way) {
	case LOAD:
		memcpy(task->seen, at, task->length);
		break;
	case STORE:
		*(volatile uint8_t *)at = 0xee;
		break;
	case SYSCALL:
		if (pipe2(pipes, 0))
			give_up("pipe2");
		/* A pipe takes a page without a reader. */
		got = write(pipes[1], at, task->length);
		if (got == task->length)
			got = read(pipes[0], task->seen, task->length);
		close(pipes[0]);
		close(pipes[1]);
		break;
	case VM_READV:
		got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
		break;
	case OTHER_MAPPING:
		memcpy(task->seen, other + task->page * page_size + task->offset, task->length);
		break;
	case DISCARD:
		got = madvise(memory + task->page * page_size, task->length * page_size, MADV_DONTNEED);
		break;
	}
	task->error = got < 0 ? errno : 0;
	__atomic_store_n(&task->ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

__attribute__((unused))
static void start(int id, enum way way, long page, long offset, long length)
{
	struct task *task = &tasks[id];

	*task = (struct task){ .way = way, .page = page, .offset = offset, .length = length, .started = 1 };
	task->seen = calloc(1, length > page_size ? length : page_size);
	if (way == STORE)
		changed[page] = 1;
	if (way == DISCARD)
		for (long each = page; each < page + length; each++)
			changed[each] = 1;
	if (pthread_create(&task->thread, NULL, run, task))
		give_up("pthread_create");
}

/* Waits for a task, at most two seconds, and looks at what it has read. */
__attribute__((unused))
static void finish(int id)
{
	struct task *task = &tasks[id];
	const struct timespec moment = { 0, 1000000 };

	for (int wait = 0; wait < 2000 && !__atomic_load_n(&task->ended, __ATOMIC_ACQUIRE); wait++)
		nanosleep(&moment, NULL);
	if (!__atomic_load_n(&task->ended, __ATOMIC_ACQUIRE)) {
		printf("FAILS: access %d, to page %ld, does not end\n", id, task->page);
		failures++;
		return;
	}
	task->started = 0;
	pthread_join(task->thread, NULL);
	if (task->way == DISCARD || task->way == STORE || task->error || changed[task->page])
		return;
	for (long at = 0; at + 4 <= task->length; at += 4) {
		uint32_t seen, wanted = word_of(task->page + 1, (task->offset + at) / 4);

		memcpy(&seen, task->seen + at, 4);
		if (seen == wanted)
			continue;
		printf("FAILS: access %d, to page %ld, read 0x%08x at %ld; the contents are 0x%08x\n", id,
		       task->page, seen, task->offset + at, wanted);
		failures++;
		return;
	}
}

/* Reads one message, at most a second; which one it is is only said. */
__attribute__((unused))
static void take(long page)
{
	struct pollfd poller = { .fd = uffd, .events = POLLIN };
	struct uffd_msg message;

	if (poll(&poller, 1, 1000) == 1 && read(uffd, &message, sizeof(message)) == sizeof(message) &&
	    message.event == UFFD_EVENT_PAGEFAULT)
		printf("fault of page %ld (recorded: %ld)\n",
		       (long)((message.arg.pagefault.address - (uintptr_t)memory) / page_size), page);
}

/* Words of the buffer that belong to a page, plus one; 0 for zeros. */
__attribute__((unused))
static void fill(long at, long count, long number)
{
	const long words = page_size / 4;

	for (long word = at; word < at + count; word++)
		((uint32_t *)buffer)[word] = word_of(number, word % words);
}

__attribute__((unused))
static void wake(long page, long count)
{
	struct uffdio_range range = { (uintptr_t)memory + page * page_size, count * page_size };

	if (ioctl(uffd, UFFDIO_WAKE, &range))
		give_up("UFFDIO_WAKE");
}

__attribute__((unused))
static void copy(long page, long count, unsigned long long mode)
{
	struct uffdio_copy copying = { (uintptr_t)memory + page * page_size, (uintptr_t)buffer,
				       count * page_size, mode, 0 };

	if (!ioctl(uffd, UFFDIO_COPY, &copying))
		return;
	printf("UFFDIO_COPY of page %ld: %s\n", page, strerror(errno));
	if (errno == EEXIST && !(mode & UFFDIO_COPY_MODE_DONTWAKE))
		wake(page, count);
}

/* Contents go into the file behind the mapping, out of the userfaultfd's sight. */
__attribute__((unused))
static void fill_page_cache(long page, long count)
{
	if (pwrite(file, buffer, count * page_size, page * page_size) != count * page_size)
		give_up("pwrite");
}

__attribute__((unused))
static void map_page_cache(long page, long count, unsigned long long mode)
{
	struct uffdio_continue mapping = { { (uintptr_t)memory + page * page_size, count * page_size }, mode, 0 };

	if (!ioctl(uffd, UFFDIO_CONTINUE, &mapping))
		return;
	printf("UFFDIO_CONTINUE of page %ld: %s\n", page, strerror(errno));
	if (errno == EEXIST && !(mode & UFFDIO_CONTINUE_MODE_DONTWAKE))
		wake(page, count);
}

__attribute__((unused))
static void move(long page, long count, unsigned long long mode)
{
	struct uffdio_move moving = { (uintptr_t)memory + page * page_size, (uintptr_t)buffer,
				      count * page_size, mode, 0 };

	if (!ioctl(uffd, UFFDIO_MOVE, &moving))
		return;
	printf("UFFDIO_MOVE of page %ld: %s\n", page, strerror(errno));
	if (errno == EEXIST && !(mode & UFFDIO_MOVE_MODE_DONTWAKE))
		wake(page, count);
}

__attribute__((unused))
static void poison(long page, long count, unsigned long long mode)
{
	struct uffdio_poison poisoning = { { (uintptr_t)memory + page * page_size, count * page_size }, mode, 0 };

	for (long each = page; each < page + count; each++)
		changed[each] = 1;
	if (ioctl(uffd, UFFDIO_POISON, &poisoning))
		printf("UFFDIO_POISON of page %ld: %s\n", page, strerror(errno));
}

__attribute__((unused))
static void zeropage(long page, long count, unsigned long long mode)
{
	struct uffdio_zeropage zeroing = { { (uintptr_t)memory + page * page_size, count * page_size }, mode, 0 };

	if (!ioctl(uffd, UFFDIO_ZEROPAGE, &zeroing))
		return;
	printf("UFFDIO_ZEROPAGE of page %ld: %s\n", page, strerror(errno));
	if (errno == EEXIST && !(mode & UFFDIO_ZEROPAGE_MODE_DONTWAKE))
		wake(page, count);
}

__attribute__((unused))
static void write_protect(long page, long count, int on)
{
	struct uffdio_writeprotect protecting = {
		{ (uintptr_t)memory + page * page_size, count * page_size }, on ? UFFDIO_WRITEPROTECT_MODE_WP : 0
	};

	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &protecting))
		printf("UFFDIO_WRITEPROTECT of page %ld: %s\n", page, strerror(errno));
}

static void set_up(void)
{
	const int flags = SHARED ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register registering;
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	page_size = sysconf(_SC_PAGESIZE);
	/* A descriptor is asked for features once; another tells which there are. */
	for (int asks = 0; asks < 2; asks++) {
		uffd = device < 0 ? (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)
				  : ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
			give_up("userfaultfd");
		api.features &= UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP | FEATURE_POISON |
				FEATURE_MOVE | (SHARED ? FEATURE_WP_SHMEM : 0) | (MINOR ? FEATURE_MINOR_SHMEM : 0);
	}
	if (SHARED && ((file = memfd_create("guest", MFD_CLOEXEC)) < 0 || ftruncate(file, PAGES * page_size)))
		give_up("memfd_create");
	memory = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, flags, file, 0);
	other = SHARED ? mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, flags, file, 0) : NULL;
	buffer = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || other == MAP_FAILED || buffer == MAP_FAILED || madvise(memory, PAGES * page_size, MADV_NOHUGEPAGE))
		give_up("mmap");
	registering = (struct uffdio_register){
		.range = { (uintptr_t)memory, PAGES * page_size },
		.mode = UFFDIO_REGISTER_MODE_MISSING |
			(!SHARED || api.features & FEATURE_WP_SHMEM ? UFFDIO_REGISTER_MODE_WP : 0) |
			(MINOR ? UFFDIO_REGISTER_MODE_MINOR : 0),
	};
	if (ioctl(uffd, UFFDIO_REGISTER, &registering))
		give_up("UFFDIO_REGISTER");
}

static int tear_down(void)
{
	for (int id = 0; id < TASKS; id++)
		if (tasks[id].started)
			finish(id);
	printf(failures ? "it goes wrong here, too\n" : "nothing goes wrong here\n");
	fflush(stdout);
	/* Accesses that still wait are left behind. */
	_exit(failures ? 1 : 0);
}
