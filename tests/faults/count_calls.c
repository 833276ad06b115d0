/* Preloaded: counts the calls that change files and, once armed, kills the process before the
   n-th of them. It stands between every two system calls that write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1;

void arm(long calls) { left = calls; }
long calls_left(void) { return left; }

static void count(void) {
    if (left > 0 && --left == 0) kill(getpid(), SIGKILL);
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *body, size_t size) {
    NEXT(write);
    /* A write that is cut off in its middle leaves half of it. */
    if (left == 1 && size > 1) next(fd, body, size / 2);
    count();
    return next(fd, body, size);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        va_list rest; va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (flags & (O_CREAT | O_TRUNC)) count(); \
        return next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        NEXT(name); \
        va_list rest; va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (flags & (O_CREAT | O_TRUNC)) count(); \
        return next(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to) { NEXT(rename); count(); return next(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat); count(); return next(a, from, b, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    NEXT(renameat2); count(); return next(a, from, b, to, flags);
}
int unlink(const char *path) { NEXT(unlink); count(); return next(path); }
int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat); count(); return next(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) { NEXT(mkdir); count(); return next(path, mode); }
int rmdir(const char *path) { NEXT(rmdir); count(); return next(path); }
int fsync(int fd) { NEXT(fsync); count(); return next(fd); }
