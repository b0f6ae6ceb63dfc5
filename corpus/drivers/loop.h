/* The frame of the library cases: worker threads call work() for ever, and a control port on 127.0.0.1 answers one line
 * of text per connection. The request "stats" asks for the counters; every other line goes to query().
 *
 * usage: program PORT [THREADS] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_MAX = 1 << 22, ANSWER_MAX = 1 << 16 };

static atomic_ulong loops, errors, longest_us;

/* One unit of work; returns 0 when its result was right. */
static int work(unsigned long round);
/* Answers one request line. */
static void query(const char *line, char *answer, size_t size);

static unsigned long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned long)t.tv_sec * 1000000 + (unsigned long)t.tv_nsec / 1000;
}

static void *worker(void *unused) {
    (void)unused;
    unsigned long before = now_us();
    for (unsigned long round = 0;; round++) {
        if (work(round)) atomic_fetch_add(&errors, 1);
        atomic_fetch_add(&loops, 1);
        /* The longest round since the last "stats" shows how long a thread was held up. */
        unsigned long now = now_us(), took = now - before, longest = atomic_load(&longest_us);
        while (took > longest && !atomic_compare_exchange_weak(&longest_us, &longest, took)) {
        }
        before = now;
    }
    return NULL;
}

static int listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 16)) {
        perror("bind");
        exit(1);
    }
    return fd;
}

/* Reads up to the end of the first line, which is cut off. */
static void read_line(int fd, char *line, size_t size) {
    size_t got = 0;
    ssize_t n;
    while (got < size - 1 && (n = read(fd, line + got, size - 1 - got)) > 0) {
        got += (size_t)n;
        if (memchr(line + got - n, '\n', (size_t)n)) break;
    }
    line[got] = 0;
    line[strcspn(line, "\n")] = 0;
}

_Noreturn static void loop_main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 7000, threads = argc > 2 ? atoi(argv[2]) : 2;
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(port);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, worker, NULL);
    }
    char *line = malloc(REQUEST_MAX), *answer = malloc(ANSWER_MAX);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        read_line(fd, line, REQUEST_MAX);
        if (!strcmp(line, "stats"))
            snprintf(answer, ANSWER_MAX, "loops=%lu errors=%lu longest_us=%lu", atomic_load(&loops),
                     atomic_load(&errors), atomic_exchange(&longest_us, 0));
        else
            query(line, answer, ANSWER_MAX - 1);
        strcat(answer, "\n");
        /* A client that has gone away is no concern of the workers. */
        if (write(fd, answer, strlen(answer)) < 0) perror("write");
        close(fd);
    }
}
