/* The floor: what the writing alone costs. It knows no database, no framework and no language but C.
 *
 *     floor PORT SOCKET
 *
 * It serves every request on PORT with a stream of server-sent events, and what arrives in a datagram on the Unix
 * socket SOCKET, frames that are ready to be sent, it writes to every stream as one chunk, with one write() each. Where
 * several datagrams wait already, they leave together. No write blocks: what a socket does not take is kept and follows
 * when there is room.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EVENTS 256
#define DATAGRAM (256 * 1024)
#define CHUNK (512 * 1024)
#define HEADER 16

static const char opening[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                              "Transfer-Encoding: chunked\r\n\r\n8\r\n: open\n\n\r\n";

struct stream {
    int fd;
    int matched;   /* bytes of the head's end that have come, 4 when it is there */
    size_t index;  /* its place among the open ones */
    char *rest;    /* what the socket did not take */
    size_t rest_size;
};

static struct stream **open_streams;
static size_t open_count, open_room;
static int poller, listener, datagrams;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int fd, int change, void *who, unsigned events)
{
    struct epoll_event interest = {.events = events, .data.ptr = who};
    if (epoll_ctl(poller, change, fd, &interest) != 0)
        die("epoll_ctl");
}

static void end_stream(struct stream *stream)
{
    close(stream->fd);
    if (stream->matched == 4) {
        open_streams[stream->index] = open_streams[--open_count];
        open_streams[stream->index]->index = stream->index;
    }
    free(stream->rest);
    free(stream);
}

static void keep(struct stream *stream, const char *text, size_t size)
{
    bool is_first = stream->rest_size == 0;
    stream->rest = realloc(stream->rest, stream->rest_size + size);
    if (stream->rest == NULL)
        die("realloc");
    memcpy(stream->rest + stream->rest_size, text, size);
    stream->rest_size += size;
    if (is_first)
        watch(stream->fd, EPOLL_CTL_MOD, stream, EPOLLIN | EPOLLOUT);
}

static void send_text(struct stream *stream, const char *text, size_t size)
{
    ssize_t sent = 0;
    if (stream->rest_size == 0)
        sent = write(stream->fd, text, size);
    if (sent < 0)
        sent = 0; /* a client that has gone is noticed where it is read */
    if ((size_t)sent < size)
        keep(stream, text + sent, size - sent);
}

static void send_rest(struct stream *stream)
{
    ssize_t sent = write(stream->fd, stream->rest, stream->rest_size);
    if (sent <= 0)
        return;
    stream->rest_size -= sent;
    memmove(stream->rest, stream->rest + sent, stream->rest_size);
    if (stream->rest_size == 0)
        watch(stream->fd, EPOLL_CTL_MOD, stream, EPOLLIN);
}

static void open_stream(struct stream *stream)
{
    if (open_count == open_room) {
        open_room = open_room ? 2 * open_room : 1024;
        open_streams = realloc(open_streams, open_room * sizeof *open_streams);
        if (open_streams == NULL)
            die("realloc");
    }
    stream->index = open_count;
    open_streams[open_count++] = stream;
    send_text(stream, opening, sizeof opening - 1);
}

static void receive(struct stream *stream)
{
    char input[4096];
    ssize_t got = read(stream->fd, input, sizeof input);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        end_stream(stream);
        return;
    }
    for (ssize_t i = 0; i < got && stream->matched < 4; i++) {
        if (input[i] == "\r\n\r\n"[stream->matched])
            stream->matched++;
        else
            stream->matched = input[i] == '\r';
        if (stream->matched == 4)
            open_stream(stream);
    }
}

static void accept_all(void)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int yes = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct stream *stream = calloc(1, sizeof *stream);
        if (stream == NULL)
            die("calloc");
        stream->fd = fd;
        watch(fd, EPOLL_CTL_ADD, stream, EPOLLIN);
    }
}

static void send_to_all(void)
{
    static char chunk[HEADER + CHUNK + 2];
    size_t size = 0;
    while (size + DATAGRAM <= CHUNK) {
        ssize_t got = recv(datagrams, chunk + HEADER + size, DATAGRAM, MSG_DONTWAIT);
        if (got < 0)
            break;
        size += got;
    }
    if (size == 0)
        return;
    char header[HEADER + 1];
    int length = snprintf(header, sizeof header, "%zx\r\n", size);
    char *start = chunk + HEADER - length;
    memcpy(start, header, length);
    memcpy(chunk + HEADER + size, "\r\n", 2);
    for (size_t i = 0; i < open_count; i++)
        send_text(open_streams[i], start, length + size + 2);
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 2048) != 0)
        die("listen");
    return fd;
}

static int receive_at(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die(path);
    return fd;
}

static void serve(struct epoll_event *ready)
{
    struct stream *stream = ready->data.ptr;
    if (ready->data.ptr == &listener)
        accept_all();
    else if (ready->data.ptr == &datagrams)
        send_to_all();
    else if (ready->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(stream);
    else
        send_rest(stream);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: floor PORT SOCKET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    poller = epoll_create1(EPOLL_CLOEXEC);
    datagrams = receive_at(argv[2]);
    listener = listen_on(atoi(argv[1]));
    watch(listener, EPOLL_CTL_ADD, &listener, EPOLLIN);
    watch(datagrams, EPOLL_CTL_ADD, &datagrams, EPOLLIN);
    for (;;) {
        struct epoll_event ready[EVENTS];
        int count = epoll_wait(poller, ready, EVENTS, -1);
        for (int i = 0; i < count; i++)
            serve(&ready[i]);
    }
}
