/* A file system that stops answering, for a process that is started with LD_PRELOAD: as long as the file HANG_WHILE exists, calls that
 * reach what lies below the folder HANG_BELOW do not return. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void hang(const char *path) {
  const char *below = getenv("HANG_BELOW"), *flag = getenv("HANG_WHILE");
  if (!below || !flag || strncmp(path, below, strlen(below)) != 0)
    return;
  while (access(flag, F_OK) == 0)
    usleep(20000);
}

static void hang_fd(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n > 0) {
    path[n] = 0;
    hang(path);
  }
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fdatasync(int fd) {
  NEXT(fdatasync);
  hang_fd(fd);
  return next(fd);
}

int fsync(int fd) {
  NEXT(fsync);
  hang_fd(fd);
  return next(fd);
}

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir);
  hang(path);
  return next(path, mode);
}

ssize_t pread64(int fd, void *to, size_t n, off64_t at) {
  NEXT(pread64);
  hang_fd(fd);
  return next(fd, to, n, at);
}

int open64(const char *path, int flags, ...) {
  __typeof__(int(const char *, int, ...)) *next = dlsym(RTLD_NEXT, "open64");
  mode_t mode = 0;
  if (flags & (O_CREAT | O_TMPFILE)) {
    __builtin_va_list list;
    __builtin_va_start(list, flags);
    mode = __builtin_va_arg(list, mode_t);
    __builtin_va_end(list);
  }
  hang(path);
  return next(path, flags, mode);
}
