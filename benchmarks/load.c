/* The load client: opens streams of server-sent events, reads them all, and keeps account of every event.
 *
 *     load PORT PATH
 *
 * One thread, one epoll. It is told what to do by lines on its standard input, and answers each with one line of JSON:
 *
 *     open N           connect N streams; answers when each has its first bytes or has failed
 *     window LAST      forget what was counted; events 1 to LAST are expected on every stream from now on
 *     report SECONDS   wait until every open stream has event LAST, SECONDS at most, or until nothing arrives for
 *                      QUIET; then tell the counts and the latencies
 *
 * It ends with its standard input. An event's data is {"n":<number>,"t":<CLOCK_MONOTONIC when published, ns>,...}.
 * Number 0 belongs to no window and is not counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Streams without their first bytes at any time. Servers' accept queues hold more, so none is turned away for haste. */
#define CONNECTING 128
/* A stream's addresses: with several there are enough ports, however short ago another run had them. */
#define SOURCES 8
#define READ_SIZE (128 * 1024)
#define HELD_SIZE (64 * 1024)
#define EVENTS 512
#define SECOND 1000000000LL
#define QUIET (3 * SECOND)
#define STUCK (20 * SECOND)
/* A full server's answer ends like any other, and its end may come a little later. */
#define GRACE (SECOND / 4)

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum state { IDLE, CONNECT, HEAD, OPENING, OPEN, CLOSED };
enum chunk { SIZE, EXTENSION, DATA, DATA_END, LAST_CHUNK, PLAIN };

struct stream {
    int fd;
    enum state state;
    enum chunk chunk;
    int64_t next;      /* the number of the event that comes now */
    uint64_t left;     /* bytes of the chunk that are to come, or its size so far */
    char *held;        /* the beginning of a head or an event, the rest of which is to come */
    size_t held_size;
};

enum failure { REFUSED, RESET, ENDED, STATUS, UNANSWERED, OTHER, FAILURES };
static const char *failure_names[FAILURES] = {"refused", "reset", "ended", "status", "unanswered", "other"};

static struct stream *streams;
static size_t stream_count, attempted, connecting, opened, alive;
static size_t failures[FAILURES];
static int64_t opening_since, opened_at, progress_at;

static int64_t last, delivered, missing, duplicates, refreshes, closed, bytes;
static size_t arrived;
static int64_t first_publish, first_receipt, last_receipt, last_event;
static uint32_t *latencies; /* microseconds */
static size_t latency_count, latency_room;
static double cpu_before;

static int64_t report_until, report_since;
static bool opening, reporting;

static int poller;
static int port;
static char request[1024];
static char buffer[HELD_SIZE + READ_SIZE];

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static double cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* ---- the account ---- */

static void record_latency(int64_t nanoseconds)
{
    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (latencies == NULL)
            die("no memory");
    }
    int64_t microseconds = nanoseconds / 1000;
    latencies[latency_count++] = microseconds < 0 ? 0 : microseconds > UINT32_MAX ? UINT32_MAX : (uint32_t)microseconds;
}

static void record(struct stream *stream, int64_t number, int64_t published, int64_t received)
{
    if (number == 0)
        return;
    last_event = received;
    if (number < stream->next) {
        duplicates++;
        return;
    }
    missing += number - stream->next;
    bool was_short = stream->next <= last;
    stream->next = number + 1;
    if (was_short && stream->next > last)
        arrived++;
    delivered++;
    if (first_publish == 0 || published < first_publish)
        first_publish = published;
    if (first_receipt == 0)
        first_receipt = received;
    last_receipt = received;
    record_latency(received - published);
}

/* ---- the format ---- */

static const char *number_after(const char *at, const char *end, const char *name, int64_t *number)
{
    size_t length = strlen(name);
    if ((size_t)(end - at) < length || memcmp(at, name, length) != 0)
        return NULL;
    at += length;
    while (at < end && *at == ' ')
        at++;
    const char *start = at;
    int64_t value = 0;
    while (at < end && *at >= '0' && *at <= '9')
        value = 10 * value + (*at++ - '0');
    *number = value;
    return at > start ? at : NULL;
}

static const char *skip(const char *at, const char *end, char what)
{
    if (at < end && *at == what)
        at++;
    while (at < end && *at == ' ')
        at++;
    return at;
}

struct event {
    bool is_refresh, has_number;
    int64_t number, published;
};

static void read_line(struct event *event, const char *at, const char *end)
{
    if (end - at > 5 && memcmp(at, "data:", 5) == 0) {
        at = skip(at + 5, end, ' ');
        at = skip(at, end, '{');
        if ((at = number_after(at, end, "\"n\":", &event->number)) == NULL)
            return;
        at = skip(at, end, ',');
        event->has_number = number_after(at, end, "\"t\":", &event->published) != NULL;
    } else if (end - at > 6 && memcmp(at, "event:", 6) == 0) {
        at = skip(at + 6, end, ' ');
        event->is_refresh = end - at == 7 && memcmp(at, "refresh", 7) == 0;
    }
}

/* Take the events that are there in full; returns where the first one that is not begins. */
static const char *take_events(struct stream *stream, const char *at, const char *end, int64_t received)
{
    const char *begin = at;
    struct event event = {0};
    const char *line_end;
    while ((line_end = memchr(at, '\n', end - at)) != NULL) {
        const char *stop = line_end > at && line_end[-1] == '\r' ? line_end - 1 : line_end;
        if (stop > at) {
            read_line(&event, at, stop);
        } else {
            if (event.is_refresh) {
                refreshes++;
                last_event = received;
            } else if (event.has_number) {
                record(stream, event.number, event.published, received);
            }
            event = (struct event){0};
            begin = line_end + 1;
        }
        at = line_end + 1;
    }
    return begin;
}

/* Move the contents of the chunks in [at, end) to `text`, which lies at or before `at`; returns the end of the text. */
static char *take_chunks(struct stream *stream, char *text, const char *at, const char *end)
{
    while (at < end) {
        switch (stream->chunk) {
        case SIZE: {
            char c = *at++;
            if (c >= '0' && c <= '9')
                stream->left = 16 * stream->left + (c - '0');
            else if ((c | 32) >= 'a' && (c | 32) <= 'f')
                stream->left = 16 * stream->left + ((c | 32) - 'a' + 10);
            else if (c == '\n')
                stream->chunk = stream->left ? DATA : LAST_CHUNK;
            else if (c == ';')
                stream->chunk = EXTENSION;
            break;
        }
        case EXTENSION:
            if (*at++ == '\n')
                stream->chunk = stream->left ? DATA : LAST_CHUNK;
            break;
        case DATA:
        case PLAIN: {
            size_t length = end - at;
            if (stream->chunk == DATA && length > stream->left)
                length = stream->left;
            memmove(text, at, length);
            text += length;
            at += length;
            if (stream->chunk == DATA && (stream->left -= length) == 0)
                stream->chunk = DATA_END;
            break;
        }
        case DATA_END:
            if (*at++ == '\n')
                stream->chunk = SIZE;
            break;
        case LAST_CHUNK:
            return text;
        }
    }
    return text;
}

/* ---- the streams ---- */

static void hold(struct stream *stream, const char *at, const char *end)
{
    size_t size = end - at;
    if (size > HELD_SIZE)
        die("an event or head of more than %d bytes", HELD_SIZE);
    if (size > 0) {
        stream->held = realloc(stream->held, size);
        if (stream->held == NULL)
            die("no memory");
        memcpy(stream->held, at, size);
    }
    stream->held_size = size;
}

static void end_stream(struct stream *stream, enum failure why)
{
    close(stream->fd);
    stream->fd = -1;
    /* One that ends while others still connect was no stream: a full server says so and hangs up. */
    if (stream->state < OPEN) {
        failures[why]++;
        connecting--;
    } else if (opening) {
        failures[why]++;
        opened--;
        alive--;
    } else {
        closed++;
        alive--;
        if (stream->next > last)
            arrived--;
        else
            missing += last + 1 - stream->next;
    }
    stream->state = CLOSED;
    progress_at = now();
    free(stream->held);
    stream->held = NULL;
    stream->held_size = 0;
}

static bool contains(const char *head, const char *end, const char *text)
{
    size_t length = strlen(text);
    for (; (size_t)(end - head) >= length; head++)
        if (strncasecmp(head, text, length) == 0)
            return true;
    return false;
}

/* Read what has arrived of the head; returns the beginning of the body, or NULL when that is to come. */
static const char *take_head(struct stream *stream, const char *at, const char *end)
{
    const char *blank = memmem(at, end - at, "\r\n\r\n", 4);
    if (blank == NULL) {
        hold(stream, at, end);
        return NULL;
    }
    if (end - at < 12 || memcmp(at, "HTTP/1.", 7) != 0 || memcmp(at + 8, " 200", 4) != 0
        || !contains(at, blank, "text/event-stream")) {
        end_stream(stream, STATUS);
        return NULL;
    }
    /* A length is known of what ends, not of a stream: a full server asks to come back later. */
    if (contains(at, blank, "content-length:")) {
        end_stream(stream, ENDED);
        return NULL;
    }
    stream->chunk = contains(at, blank + 2, "transfer-encoding: chunked") ? SIZE : PLAIN;
    stream->left = 0;
    stream->state = OPENING;
    stream->held_size = 0;
    return blank + 4;
}

static void take_body(struct stream *stream, char *text, const char *raw, const char *end, int64_t received)
{
    char *text_end = take_chunks(stream, text + stream->held_size, raw, end);
    if (stream->state == OPENING && text_end > text) {
        stream->state = OPEN;
        connecting--;
        opened++;
        alive++;
        opened_at = progress_at = received;
    }
    const char *rest = take_events(stream, text, text_end, received);
    hold(stream, rest, text_end);
    if (stream->chunk == LAST_CHUNK)
        end_stream(stream, ENDED);
}

static void receive(struct stream *stream)
{
    size_t held = stream->held_size;
    ssize_t got = read(stream->fd, buffer + held, READ_SIZE);
    int64_t received = now();
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        end_stream(stream, got == 0 ? ENDED : errno == ECONNRESET ? RESET : OTHER);
        return;
    }
    bytes += got;
    if (held > 0)
        memcpy(buffer, stream->held, held);
    char *raw = buffer + held, *end = raw + got;
    if (stream->state == HEAD) {
        const char *body = take_head(stream, buffer, end);
        if (body == NULL)
            return;
        take_body(stream, buffer, body, end, received);
    } else {
        take_body(stream, buffer, raw, end, received);
    }
}

static void send_request(struct stream *stream)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        end_stream(stream, error == ECONNREFUSED ? REFUSED : error == ECONNRESET ? RESET : OTHER);
        return;
    }
    /* A new socket's buffer has room for it. */
    if (write(stream->fd, request, strlen(request)) != (ssize_t)strlen(request)) {
        end_stream(stream, RESET);
        return;
    }
    stream->state = HEAD;
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = stream};
    epoll_ctl(poller, EPOLL_CTL_MOD, stream->fd, &interest);
}

static void connect_stream(struct stream *stream)
{
    stream->state = CONNECT;
    stream->next = 1;
    connecting++;
    int fd = stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        end_stream(stream, OTHER);
        return;
    }
    int yes = 1;
    /* Closed by a reset, so that no port waits for its old packets when the next contender comes. */
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (stream - streams) % SOURCES);
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0
        || (connect(fd, (struct sockaddr *)&target, sizeof target) != 0 && errno != EINPROGRESS)) {
        end_stream(stream, errno == ECONNREFUSED ? REFUSED : OTHER);
        return;
    }
    struct epoll_event interest = {.events = EPOLLOUT, .data.ptr = stream};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest);
}

/* ---- the commands ---- */

static void start_opening(size_t count)
{
    if (streams != NULL)
        die("streams are opened once");
    streams = calloc(count, sizeof *streams);
    if (streams == NULL)
        die("no memory");
    stream_count = count;
    opening = true;
    opening_since = opened_at = progress_at = now();
}

static void go_on_opening(void)
{
    while (attempted < stream_count && connecting < CONNECTING)
        connect_stream(&streams[attempted++]);
    if (now() - progress_at > STUCK) {
        for (size_t i = 0; i < attempted; i++)
            if (streams[i].state > IDLE && streams[i].state < OPEN)
                end_stream(&streams[i], UNANSWERED);
        failures[UNANSWERED] += stream_count - attempted;
        attempted = stream_count;
    }
    if (attempted < stream_count || connecting > 0 || now() - progress_at < GRACE)
        return;
    opening = false;
    printf("{\"open\": %zu, \"seconds\": %.6f", opened, (opened_at - opening_since) / 1e9);
    for (int i = 0; i < FAILURES; i++)
        printf(", \"%s\": %zu", failure_names[i], failures[i]);
    printf("}\n");
}

static void start_window(int64_t last_number)
{
    last = last_number;
    delivered = missing = duplicates = refreshes = closed = bytes = 0;
    first_publish = first_receipt = last_receipt = last_event = 0;
    arrived = 0;
    for (size_t i = 0; i < stream_count; i++)
        streams[i].next = 1;
    /* Ahead of time, so that no page is looked for while events arrive. */
    size_t room = alive * last_number;
    if (room > latency_room) {
        latencies = realloc(latencies, room * sizeof *latencies);
        if (latencies == NULL)
            die("no memory");
        latency_room = room;
    }
    if (latency_room > 0)
        memset(latencies, 0, latency_room * sizeof *latencies);
    latency_count = 0;
    cpu_before = cpu();
    printf("{}\n");
}

static int compare(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return a < b ? -1 : a > b;
}

/* The smallest latency that so many percent of all do not exceed. */
static double percentile(double percent)
{
    if (latency_count == 0)
        return 0;
    size_t rank = (size_t)(percent / 100 * latency_count + 0.999999);
    return latencies[rank > 0 ? rank - 1 : 0];
}

static void report(void)
{
    double used = cpu() - cpu_before;
    for (size_t i = 0; i < stream_count; i++)
        if (streams[i].state == OPEN && streams[i].next <= last)
            missing += last + 1 - streams[i].next;
    qsort(latencies, latency_count, sizeof *latencies, compare);
    printf("{\"streams\": %zu, \"arrived\": %zu, \"delivered\": %" PRId64 ", \"missing\": %" PRId64
           ", \"duplicates\": %" PRId64 ", \"refreshes\": %" PRId64 ", \"closed\": %" PRId64 ", \"bytes\": %" PRId64,
           alive, arrived, delivered, missing, duplicates, refreshes, closed, bytes);
    printf(", \"first_publish\": %" PRId64 ", \"first_receipt\": %" PRId64 ", \"last_receipt\": %" PRId64,
           first_publish, first_receipt, last_receipt);
    printf(", \"p50\": %.0f, \"p99\": %.0f, \"max\": %.0f, \"cpu\": %.3f}\n", percentile(50), percentile(99),
           percentile(100), used);
    reporting = false;
}

static void go_on_reporting(void)
{
    int64_t time = now();
    int64_t heard = last_event > report_since ? last_event : report_since;
    if (arrived >= alive || time > report_until || time - heard > QUIET)
        report();
}

static void obey(const char *line)
{
    long long number;
    double seconds;
    if (sscanf(line, "open %lld", &number) == 1) {
        start_opening(number);
    } else if (sscanf(line, "window %lld", &number) == 1) {
        start_window(number);
    } else if (sscanf(line, "report %lf", &seconds) == 1) {
        reporting = true;
        report_since = now();
        report_until = report_since + (int64_t)(seconds * SECOND);
    } else {
        die("unknown command: %s", line);
    }
}

/* Standard input is read by hand: a buffered line would not wake the poller. False at its end. */
static bool read_commands(void)
{
    static char line[256];
    static size_t length;
    char input[256];
    ssize_t got = read(STDIN_FILENO, input, sizeof input);
    if (got <= 0)
        return false;
    for (ssize_t i = 0; i < got; i++) {
        if (input[i] == '\n') {
            line[length] = 0;
            length = 0;
            obey(line);
        } else if (length < sizeof line - 1) {
            line[length++] = input[i];
        }
    }
    return true;
}

static void raise_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static bool turn(void)
{
    struct epoll_event ready[EVENTS];
    int count = epoll_wait(poller, ready, EVENTS, opening || reporting ? 20 : -1);
    if (count < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct stream *stream = ready[i].data.ptr;
        if (stream == NULL) {
            if (!read_commands())
                return false;
        } else if (stream->state == CONNECT) {
            send_request(stream);
        } else if (stream->state != CLOSED) {
            receive(stream);
        }
    }
    if (opening)
        go_on_opening();
    if (reporting)
        go_on_reporting();
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: load PORT PATH");
    port = atoi(argv[1]);
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n"
             "Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) load\r\n"
             "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\n\r\n",
             argv[2], port);
    signal(SIGPIPE, SIG_IGN);
    raise_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &commands);
    while (turn())
        ;
    return 0;
}
