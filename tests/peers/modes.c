/* A mount whose files belong to another user, for a process that is started with LD_PRELOAD: modes cannot be changed, as on vfat or SMB,
 * and everything else works. */
#include <errno.h>
#include <sys/stat.h>

static int refuse(void) {
  errno = EPERM;
  return -1;
}

int chmod(const char *path, mode_t mode) {
  (void)path;
  (void)mode;
  return refuse();
}

int fchmod(int file, mode_t mode) {
  (void)file;
  (void)mode;
  return refuse();
}

int fchmodat(int folder, const char *path, mode_t mode, int flags) {
  (void)folder;
  (void)path;
  (void)mode;
  (void)flags;
  return refuse();
}
