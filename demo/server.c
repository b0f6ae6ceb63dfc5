/* The server of the demo: four threads, each waiting for its own connections.
 *
 * A record is two bytes of length, then a body whose first byte says what it is: 'L' logs in, 'H' is a heartbeat. The
 * answer is two bytes of length, then the answer.
 *
 * usage: server PORT */
#define _GNU_SOURCE
#include "heartbeat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 4, EVENTS = 16 };

/* Each connection keeps one buffer for all its records. */
struct connection {
    int fd;
    unsigned char body[RECORD_MAX];
    unsigned char answer[2 + RECORD_MAX];
};

/* A failed system call ends the server: whoever disturbs it will be noticed. */
_Noreturn static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Receives exactly so many bytes; returns 0 at the end of the connection. */
static int receive(int fd, void *into, size_t size) {
    ssize_t got = recv(fd, into, size, MSG_WAITALL);
    if (got < 0 && errno != ECONNRESET) die("recv");
    return got == (ssize_t)size;
}

static size_t answer(const unsigned char *body, size_t length, unsigned char *into) {
    if (length == 0) return 0;
    switch (body[0]) {
    case 'L':
        memcpy(into, "welcome", 7);
        return 7;
    case 'H':
        return answer_heartbeat(body + 1, length - 1, into);
    default:
        return 0;
    }
}

/* Serves one record; returns 0 when the peer has gone. */
static int serve(struct connection *peer) {
    unsigned char head[2];
    if (!receive(peer->fd, head, sizeof head)) return 0;
    size_t length = (size_t)head[0] << 8 | head[1];
    if (!receive(peer->fd, peer->body, length)) return 0;
    size_t answered = answer(peer->body, length, peer->answer + 2);
    peer->answer[0] = (unsigned char)(answered >> 8);
    peer->answer[1] = (unsigned char)answered;
    return send(peer->fd, peer->answer, 2 + answered, MSG_NOSIGNAL) == (ssize_t)(2 + answered);
}

static void *work(void *argument) {
    int poll = (int)(intptr_t)argument;
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        if (ready < 0) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *peer = events[i].data.ptr;
            if (serve(peer)) continue;
            close(peer->fd);
            free(peer);
        }
    }
}

int main(int argc, char **argv) {
    int one = 1, polls[WORKERS], listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "7000")),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 64)) die("bind");
    for (int i = 0; i < WORKERS; i++) {
        pthread_t thread;
        polls[i] = epoll_create1(0);
        if (polls[i] < 0 || pthread_create(&thread, NULL, work, (void *)(intptr_t)polls[i])) die("thread");
    }
    for (unsigned next = 0;; next++) {
        struct connection *peer = calloc(1, sizeof *peer);
        if (!peer) die("calloc");
        peer->fd = accept(listener, NULL, NULL);
        if (peer->fd < 0) die("accept");
        setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = peer};
        if (epoll_ctl(polls[next % WORKERS], EPOLL_CTL_ADD, peer->fd, &wanted)) die("epoll_ctl");
    }
}
