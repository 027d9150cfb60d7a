/*
 * Many TCP streams at once, a site each, and how much each has carried.
 *
 *     flows serve PORT                          at the service
 *     flows connect ADDRESS PORT up|down PID... at the sites: PIDs of processes in their namespaces
 *
 * `connect` makes one connection from each network namespace, says "connected", and sends ("up") or
 * receives ("down") until standard input ends. `serve` answers a line on standard input by one line of
 * JSON: for each stream the bytes that have arrived, as TCP at the service knows it, by index. One
 * process at each end, so that little of the machine is spent on the load, and all are counted at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1024, CHUNK = 256 * 1024 };

/* The first bytes of a stream, from the site. */
struct greeting {
	uint16_t index;
	uint16_t is_up;
};

/* Indexed by descriptor. */
static struct stream {
	uint16_t index;
	uint16_t is_open, is_sender, is_up;
} streams[MOST];

static char chunk[CHUNK];
static int poller;

static void fail(const char *what)
{
	fprintf(stderr, "flows: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
		fail("epoll");
}

static void open_stream(int fd, struct greeting greeting, int is_sender)
{
	if (fd >= MOST)
		fail("too many streams");
	streams[fd] = (struct stream){greeting.index, 1, is_sender, greeting.is_up};
	fcntl(fd, F_SETFL, O_NONBLOCK);
	watch(fd, is_sender ? EPOLLOUT : EPOLLIN);
}

/* One system call a turn, so that all streams get turns. */
static void move(int fd)
{
	struct stream *stream = &streams[fd];
	ssize_t length = stream->is_sender ? send(fd, chunk, CHUNK, MSG_NOSIGNAL)
					   : recv(fd, chunk, CHUNK, 0);
	if (length > 0 || (length < 0 && errno == EAGAIN))
		return;
	stream->is_open = 0;
	close(fd);
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	if (!inet_pton(AF_INET, address, &name.sin_addr))
		fail(address);
	return name;
}

/* ---- the service ---- */

static void report(void)
{
	const char *separator = "[";
	for (int fd = 0; fd < MOST; fd++) {
		struct tcp_info info;
		socklen_t length = sizeof info;
		if (!streams[fd].is_open)
			continue;
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
			fail("TCP_INFO");
		printf("%s{\"index\":%u,\"bytes\":%llu}", separator, streams[fd].index,
		       (unsigned long long)(streams[fd].is_up ? info.tcpi_bytes_received
							      : info.tcpi_bytes_acked));
		separator = ",";
	}
	puts(*separator == '[' ? "[]" : "]");
	fflush(stdout);
}

static void greet(int listener)
{
	struct greeting greeting;
	struct timeval patience = {5, 0};
	int fd = accept(listener, NULL, NULL);
	if (fd < 0)
		fail("accept");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (recv(fd, &greeting, sizeof greeting, MSG_WAITALL) != sizeof greeting) {
		close(fd);
		return;
	}
	open_stream(fd, greeting, !greeting.is_up);
}

static void serve(const char *port)
{
	struct sockaddr_in name = address_of("0.0.0.0", port);
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(listener, (void *)&name, sizeof name) || listen(listener, MOST))
		fail("listen");
	watch(listener, EPOLLIN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(poller, events, 64, -1);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == listener)
				greet(fd);
			else if (fd != STDIN_FILENO)
				move(fd);
			else if (read(fd, chunk, CHUNK) <= 0)
				return;
			else
				report();
		}
	}
}

/* ---- the sites ---- */

static int connect_from(const char *pid, struct sockaddr_in name, struct greeting greeting)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
	int space = open(path, O_RDONLY | O_CLOEXEC);
	if (space < 0 || setns(space, CLONE_NEWNET))
		fail(path);
	close(space);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (void *)&name, sizeof name))
		fail("connect");
	if (send(fd, &greeting, sizeof greeting, 0) != sizeof greeting)
		fail("send");
	return fd;
}

static void connect_all(struct sockaddr_in name, int is_up, char **pids, int count)
{
	int fds[MOST];
	for (int i = 0; i < count; i++)
		fds[i] = connect_from(pids[i], name, (struct greeting){i, is_up});
	for (int i = 0; i < count; i++)
		open_stream(fds[i], (struct greeting){i, is_up}, is_up);
	puts("connected");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int ready = epoll_wait(poller, events, 64, -1);
		for (int i = 0; i < ready; i++) {
			if (events[i].data.fd == STDIN_FILENO)
				return;
			move(events[i].data.fd);
		}
	}
}

int main(int argc, char **argv)
{
	poller = epoll_create1(EPOLL_CLOEXEC);
	watch(STDIN_FILENO, EPOLLIN);
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		serve(argv[2]);
		return 0;
	}
	if (argc < 6 || argc - 5 > MOST / 2 || strcmp(argv[1], "connect")) {
		fputs("flows serve PORT | flows connect ADDRESS PORT up|down PID...\n", stderr);
		return 2;
	}
	connect_all(address_of(argv[2], argv[3]), !strcmp(argv[4], "up"), argv + 5, argc - 5);
	return 0;
}
