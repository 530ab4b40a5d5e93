// failing_calls.c - preloaded into a program (glibc only): its n-th allocation fails (FAIL_ALLOCATION=n; COUNT_FILE gets their number), or every
// second read of the standard input is interrupted (INTERRUPT_READS=1).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);

static long fail_at = -2, count, reads;

static int fails(void) {
    if (fail_at == -2) {                                // getenv does not allocate
        const char* n = getenv("FAIL_ALLOCATION");
        fail_at = n ? atol(n) : -1;
    }
    if (__sync_fetch_and_add(&count, 1) != fail_at) return 0;
    errno = ENOMEM;
    return 1;
}

void* malloc(size_t bytes) { return fails() ? NULL : __libc_malloc(bytes); }
void* calloc(size_t n, size_t bytes) { return fails() ? NULL : __libc_calloc(n, bytes); }
void* realloc(void* p, size_t bytes) { return fails() ? NULL : __libc_realloc(p, bytes); }

ssize_t read(int fd, void* to, size_t bytes) {
    static ssize_t (*real)(int, void*, size_t);
    if (!real) real = (ssize_t (*)(int, void*, size_t))dlsym(RTLD_NEXT, "read");
    if (fd == 0 && getenv("INTERRUPT_READS")) {
        if (reads++ % 2 == 0) {
            errno = EINTR;
            return -1;
        }
        if (bytes > 7) bytes = 7;                       // in small pieces, so that there are many
    }
    return real(fd, to, bytes);
}

__attribute__((destructor)) static void report(void) {
    const char* path = getenv("COUNT_FILE");
    char text[32];
    int at = sizeof text;
    long n = count;
    const int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (fd < 0) return;
    text[--at] = '\n';
    do text[--at] = (char)('0' + n % 10); while ((n /= 10) > 0);
    if (write(fd, text + at, sizeof text - (size_t)at) < 0) _exit(1);
    close(fd);
}
