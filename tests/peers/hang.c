/* A file system that stops answering, for a process that is started with LD_PRELOAD: while the file HANG_WHILE exists, a system call that
 * reaches what lies below the folder HANG_BELOW/NAME does not return. NAME is the call that hangs there, as in the table below, or "hung"
 * for all of them.
 *
 * A seccomp filter turns the calls of the table into SIGSYS, whoever makes them: Rust's rustix calls the kernel without the C library,
 * so a replaced function of that library would miss its writes. The handler waits, and then makes the call itself with MAGIC as its
 * sixth argument, which the filter lets through and the kernel ignores. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define MAGIC 0x68616e67

/* Where a call names the file: by its first argument as descriptor or path, or by the first two as in openat. */
enum where { FD, PATH, AT };

static const struct call {
  const char *name;
  long number;
  enum where where;
} CALLS[] = {
    {"open", SYS_openat, AT},
    {"write", SYS_pwritev, FD},
    {"write", SYS_pwritev2, FD},
    {"read", SYS_pread64, FD},
    {"sync", SYS_fdatasync, FD},
    {"sync-dir", SYS_fsync, FD},
    {"stat", SYS_statx, AT},
    {"stat", SYS_newfstatat, AT},
    {"list", SYS_getdents64, FD},
    {"lock", SYS_flock, FD},
    {"space", SYS_statfs, PATH},
    {"space", SYS_fstatfs, FD},
    {"truncate", SYS_ftruncate, FD},
    {"mode", SYS_fchmod, FD},
    {"mode", SYS_fchmodat, AT},
    {"close", SYS_close, FD},
    {"make-dir", SYS_mkdirat, AT},
    {"remove", SYS_unlinkat, AT},
    {"rename", SYS_renameat2, AT},
    {"link", SYS_readlinkat, AT},
#ifdef __x86_64__
    {"stat", SYS_stat, PATH},
    {"stat", SYS_lstat, PATH},
    {"mode", SYS_chmod, PATH},
    {"make-dir", SYS_mkdir, PATH},
    {"remove", SYS_unlink, PATH},
    {"remove", SYS_rmdir, PATH},
    {"rename", SYS_rename, PATH},
    {"rename", SYS_renameat, AT},
    {"link", SYS_readlink, PATH},
#endif
};
#define COUNT (sizeof CALLS / sizeof *CALLS)

static char below[4096], flag[4096];

/* A call that the filter lets through; a negative result is -errno. */
static long pass(long number, long a, long b, long c, long d, long e) {
#ifdef __x86_64__
  long result;
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = MAGIC;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#else
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = MAGIC;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#endif
}

static int is_hung(const char *path, const char *name) {
  size_t length = strlen(below), own = strlen(name);
  if (strncmp(path, below, length) != 0)
    return 0;
  path += length;
  if (strncmp(path, "hung/", 5) != 0 && (strncmp(path, name, own) != 0 || path[own] != '/'))
    return 0;
  return pass(SYS_faccessat, AT_FDCWD, (long)flag, F_OK, 0, 0) == 0;
}

static void hang(const struct call *call, long first, long second) {
  char link[64], found[4096];
  const char *path = call->where == PATH ? (const char *)first : (const char *)second;
  if (call->where == FD || path == NULL || *path != '/') {
    if ((int)first < 0)
      return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", (int)first);
    long n = pass(SYS_readlinkat, AT_FDCWD, (long)link, (long)found, sizeof found - 2, 0);
    if (n <= 0)
      return;
    found[n] = '/';
    found[n + 1] = 0;
    path = found;
  }
  const struct timespec pause = {0, 20000000};
  while (is_hung(path, call->name))
    pass(SYS_nanosleep, (long)&pause, 0, 0, 0, 0);
}

static void on_call(int signal, siginfo_t *info, void *context) {
  (void)signal;
  ucontext_t *user = context;
#ifdef __x86_64__
  greg_t *r = user->uc_mcontext.gregs;
  long a = r[REG_RDI], b = r[REG_RSI], c = r[REG_RDX], d = r[REG_R10], e = r[REG_R8];
#else
  unsigned long long *r = user->uc_mcontext.regs;
  long a = r[0], b = r[1], c = r[2], d = r[3], e = r[4];
#endif
  for (size_t i = 0; i < COUNT; i++)
    if (CALLS[i].number == info->si_syscall)
      hang(&CALLS[i], a, b);
  long result = pass(info->si_syscall, a, b, c, d, e);
#ifdef __x86_64__
  r[REG_RAX] = result;
#else
  r[0] = result;
#endif
}

/* A call that is trapped while SIGSYS is blocked ends the process, and GLib blocks all signals in a thread of its own. */
static int mask(const char *name, int how, const sigset_t *set, sigset_t *old) {
  int (*real)(int, const sigset_t *, sigset_t *) = (int (*)(int, const sigset_t *, sigset_t *))dlsym(RTLD_NEXT, name);
  if (set == NULL || how == SIG_UNBLOCK)
    return real(how, set, old);
  sigset_t without = *set;
  sigdelset(&without, SIGSYS);
  return real(how, &without, old);
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) { return mask("pthread_sigmask", how, set, old); }

int sigprocmask(int how, const sigset_t *set, sigset_t *old) { return mask("sigprocmask", how, set, old); }

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("HANG_BELOW"), *file = getenv("HANG_WHILE");
  if (!folder || !file)
    return;
  snprintf(below, sizeof below, "%s", folder);
  snprintf(flag, sizeof flag, "%s", file);
  const struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGSYS, &action, NULL);
  struct sock_filter filter[COUNT + 5] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MAGIC, COUNT + 1, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
  };
  for (size_t i = 0; i < COUNT; i++)
    filter[3 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, COUNT - i, 0);
  filter[3 + COUNT] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  filter[4 + COUNT] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
  const struct sock_fprog program = {COUNT + 5, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    perror("the calls cannot be made to hang");
    _exit(99);
  }
}
