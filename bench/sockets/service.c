/*
 * The service of bench/sockets, the same for all contenders: it costs little beside them.
 *
 *     service SINK-PORT SOURCE-PORT ANSWER-PORT
 *
 * The first port reads all that comes, the second sends as much as it can once a byte has come, the third answers a
 * request of 100 bytes with 100 bytes and closes. A line on standard input is answered by one line of JSON: the time in
 * microseconds, and for each open stream of the first two ports how many bytes have arrived at the receiver, as TCP
 * knows it here. The line "!" ends these streams before. The service runs until standard input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096, CHUNK = 256 * 1024, MESSAGE = 100, EVENTS = 256, BACKLOG = 1024 };

enum kind { NONE, LISTENER, SINK, SOURCE, ANSWER };

/* Indexed by descriptor. */
static struct {
	enum kind kind;
	/* Of a listener: what its connections are. Of a request: how many bytes of it are missing. Of a source: 0 once it
	   sends. */
	int detail;
} descriptors[MOST];

static char chunk[CHUNK];
static int poller;

static void fail(const char *what)
{
	fprintf(stderr, "service: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(int fd, uint32_t events, enum kind kind, int detail)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (fd >= MOST)
		fail("too many streams");
	descriptors[fd].kind = kind;
	descriptors[fd].detail = detail;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
		fail("epoll");
}

static void listen_on(const char *port, enum kind kind)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(fd, (void *)&name, sizeof name) || listen(fd, BACKLOG))
		fail("listen");
	watch(fd, EPOLLIN, LISTENER, kind);
}

static void greet(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd < 0)
			return;
		enum kind kind = descriptors[listener].detail;
		watch(fd, EPOLLIN, kind, MESSAGE);
	}
}

static void end(int fd)
{
	descriptors[fd].kind = NONE;
	close(fd);
}

static void end_streams(void)
{
	for (int fd = 0; fd < MOST; fd++)
		if (descriptors[fd].kind == SINK || descriptors[fd].kind == SOURCE)
			end(fd);
}

/* One system call a turn, so that all streams get turns. */
static void move(int fd)
{
	enum kind kind = descriptors[fd].kind;
	bool is_sender = kind == SOURCE && !descriptors[fd].detail;
	ssize_t length = is_sender ? send(fd, chunk, CHUNK, MSG_NOSIGNAL) : recv(fd, chunk, CHUNK, 0);
	if (length < 0 && errno == EAGAIN)
		return;
	if (length <= 0) {
		end(fd);
	} else if (kind == SOURCE && !is_sender) {
		struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
		descriptors[fd].detail = 0;
		epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
	} else if (kind == ANSWER && (descriptors[fd].detail -= length) <= 0) {
		(void)!send(fd, chunk, MESSAGE, MSG_NOSIGNAL);
		end(fd);
	}
}

static void report(void)
{
	struct timespec time;
	const char *separator = "";
	clock_gettime(CLOCK_MONOTONIC, &time);
	printf("{\"us\":%.0f,\"bytes\":[", time.tv_sec * 1e6 + time.tv_nsec / 1e3);
	for (int fd = 0; fd < MOST; fd++) {
		enum kind kind = descriptors[fd].kind;
		struct tcp_info info;
		socklen_t length = sizeof info;
		if (kind != SINK && kind != SOURCE)
			continue;
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
			fail("TCP_INFO");
		printf("%s%llu", separator,
		       (unsigned long long)(kind == SINK ? info.tcpi_bytes_received : info.tcpi_bytes_acked));
		separator = ",";
	}
	puts("]}");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct rlimit files = {MOST, MOST};
	struct epoll_event events[EVENTS], input = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
	if (argc != 4) {
		fputs("usage: at the top of service.c\n", stderr);
		return 2;
	}
	setrlimit(RLIMIT_NOFILE, &files);
	poller = epoll_create1(0);
	epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &input);
	listen_on(argv[1], SINK);
	listen_on(argv[2], SOURCE);
	listen_on(argv[3], ANSWER);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(poller, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == STDIN_FILENO) {
				if (read(fd, chunk, CHUNK) <= 0)
					return 0;
				if (chunk[0] == '!')
					end_streams();
				report();
			} else if (descriptors[fd].kind == LISTENER) {
				greet(fd);
			} else {
				move(fd);
			}
		}
	}
}
