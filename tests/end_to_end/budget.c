/* A budget of bytes at the seam where torch asks for the memory of CPU tensors (posix_memalign). Compiled in, because
 * a job's environment is its own:
 *
 * BUDGET_BYTES: live bytes of large blocks beyond which a request is refused with ENOMEM, as a full device refuses it.
 * BUDGET_RANK: the process that has the budget, by its RANK; the others have none.
 * BUDGET_AFTER: a path; nothing is refused before it exists.
 * BUDGET_PEAK: a file that holds the peak of live bytes so far; for choosing a budget.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LARGE 65536
#define SLOTS (1u << 18)

static struct { void *block; size_t bytes; } table[SLOTS];
static size_t live, peak;
static int here = -1, begun, told = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int (*next_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);

static void begin(void) {
  const char *rank = getenv("RANK");
  here = rank && strcmp(rank, BUDGET_RANK) == 0;
  if (here) told = open(BUDGET_PEAK, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
}

static unsigned slot(void *block) { return ((uintptr_t)block >> 6) * 2654435761u % SLOTS; }

static void count(void *block, size_t bytes) {
  unsigned at = slot(block);
  while (table[at].block) at = (at + 1) % SLOTS;
  table[at].block = block;
  table[at].bytes = bytes;
  live += bytes;
  if (live > peak) peak = live;
}

static void uncount(void *block) {
  unsigned at = slot(block);
  while (table[at].block && table[at].block != block) at = (at + 1) % SLOTS;
  if (!table[at].block) return;
  live -= table[at].bytes;
  table[at].block = NULL;
  for (unsigned next = (at + 1) % SLOTS; table[next].block; next = (next + 1) % SLOTS) { /* close the gap */
    void *moved = table[next].block;
    size_t bytes = table[next].bytes;
    table[next].block = NULL;
    live -= bytes;
    size_t was = peak;
    count(moved, bytes);
    peak = was;
  }
}

int posix_memalign(void **block, size_t alignment, size_t bytes) {
  if (!next_memalign) next_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  if (here < 0) begin();
  if (!here || bytes < LARGE) return next_memalign(block, alignment, bytes);
  pthread_mutex_lock(&lock);
  if (!begun && access(BUDGET_AFTER, F_OK) == 0) begun = 1;
  int full = begun && live + bytes > (size_t)BUDGET_BYTES;
  int code = full ? ENOMEM : next_memalign(block, alignment, bytes);
  size_t before = peak;
  if (!code) count(*block, bytes);
  char line[32];
  if (told >= 0 && peak > before && pwrite(told, line, snprintf(line, sizeof line, "%20zu\n", peak), 0) < 0) told = -1;
  pthread_mutex_unlock(&lock);
  return code;
}

void free(void *block) {
  if (!next_free) next_free = dlsym(RTLD_NEXT, "free");
  if (here == 1 && block) {
    pthread_mutex_lock(&lock);
    uncount(block);
    pthread_mutex_unlock(&lock);
  }
  next_free(block);
}
