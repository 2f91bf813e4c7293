/* A disk that keeps what was synced, and nothing else, for a process that is started with LD_PRELOAD: whenever something below the folder
 * POWER_BELOW is synced, what is durable from then on is written below POWER_DISK: the bytes of a file, and the names in a folder. The test
 * makes the disk after a power cut of that. Files are told apart by inode and time of birth, since inodes are used again. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The identity of what a descriptor or a path names, and whether it is a folder. */
static int identify(int fd, const char *path, char *id, size_t n, int *is_dir) {
  struct statx s;
  if (statx(fd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &s))
    return 0;
  snprintf(id, n, "%llu-%lld-%u", (unsigned long long)s.stx_ino, (long long)s.stx_btime.tv_sec, s.stx_btime.tv_nsec);
  *is_dir = S_ISDIR(s.stx_mode);
  return 1;
}

static int is_below(int fd) {
  const char *below = getenv("POWER_BELOW");
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0 || !below)
    return 0;
  path[n] = 0;
  return strncmp(path, below, strlen(below)) == 0;
}

static void write_bytes(int fd, FILE *out) {
  static char buffer[1 << 16];
  off_t at = 0;
  ssize_t n;
  while ((n = pread(fd, buffer, sizeof buffer, at)) > 0) {
    fwrite(buffer, 1, (size_t)n, out);
    at += n;
  }
}

static void write_names(int fd, FILE *out) {
  int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = own < 0 ? NULL : fdopendir(own);
  struct dirent *entry;
  while (dir && (entry = readdir(dir))) {
    char id[96];
    int is_dir;
    if (entry->d_name[0] != '.' && identify(own, entry->d_name, id, sizeof id, &is_dir))
      fprintf(out, "%s\t%s\t%s\n", entry->d_name, id, is_dir ? "folder" : "file");
  }
  if (dir)
    closedir(dir);
}

/* What is there before the call is what the call makes durable. */
static void keep(int fd) {
  const char *disk = getenv("POWER_DISK");
  char id[96], part[4096], whole[4096];
  int is_dir;
  if (!disk || !is_below(fd) || !identify(fd, "", id, sizeof id, &is_dir))
    return;
  pthread_mutex_lock(&lock);
  snprintf(part, sizeof part, "%s/part", disk);
  snprintf(whole, sizeof whole, "%s/%s", disk, id);
  FILE *out = fopen(part, "w");
  if (out) {
    if (is_dir)
      write_names(fd, out);
    else
      write_bytes(fd, out);
    if (fclose(out) == 0)
      rename(part, whole);
  }
  pthread_mutex_unlock(&lock);
}

int fdatasync(int fd) {
  NEXT(fdatasync);
  keep(fd);
  return next(fd);
}

int fsync(int fd) {
  NEXT(fsync);
  keep(fd);
  return next(fd);
}
