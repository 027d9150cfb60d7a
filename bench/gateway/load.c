/*
 * Both ends of the small loads of bench/gateway: round trips in one TCP connection, short TCP
 * connections, and small UDP datagrams at a rate. Results are one line of JSON on standard output.
 *
 *     load serve ECHO-PORT ANSWER-PORT UDP-PORT    runs until its standard input ends; a line there
 *                                                  asks for the count of datagrams since the last one
 *     load ping-pong ADDRESS PORT COUNT MS         64 bytes there and back, COUNT times or for MS
 *     load connect ADDRESS PORT COUNT MS           connect, 100 bytes there, 1000 back, close
 *     load udp ADDRESS PORT RATE MS                RATE datagrams of 64 bytes a second; 0: all it can
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  MESSAGE = 64,
  REQUEST = 100,
  ANSWER = 1000,
  WARM_UP = 100,
  TICK_US = 200,
  MAX_SAMPLES = 1000000,
  MAX_CONNECTIONS = 64,
  BATCH = 64,
  /* The tunnel is empty when nothing has come for so long. */
  QUIET_MS = 100
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int connected(const char *address, const char *port, int type) {
  struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_NUMERICHOST};
  struct addrinfo *found;
  if (getaddrinfo(address, port, &hints, &found) != 0) {
    fprintf(stderr, "%s is no address\n", address);
    exit(1);
  }
  int fd = socket(found->ai_family, type, 0);
  if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0) fail("connect");
  freeaddrinfo(found);
  int on = 1;
  if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static void write_all(int fd, const char *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t count = send(fd, bytes + done, length - done, MSG_NOSIGNAL);
    if (count < 0) fail("send");
    done += count;
  }
}

static void read_all(int fd, char *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t count = recv(fd, bytes + done, length - done, 0);
    if (count < 0) fail("recv");
    if (count == 0) {
      fprintf(stderr, "the connection ended after %zu of %zu bytes\n", done, length);
      exit(1);
    }
    done += count;
  }
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(double *samples, int count) {
  if (count == 0) {
    fprintf(stderr, "nothing was measured\n");
    exit(1);
  }
  qsort(samples, count, sizeof *samples, by_size);
  printf("{\"p50Us\":%.1f,\"p99Us\":%.1f,\"count\":%d}\n", samples[count / 2],
         samples[(int)(count * 0.99)], count);
}

static void ping_pong(const char *address, const char *port, int count, double ms) {
  static double samples[MAX_SAMPLES];
  char message[MESSAGE] = {0};
  int fd = connected(address, port, SOCK_STREAM);
  double begin = now_us();
  int taken = 0;
  for (int i = 0; taken < count && now_us() < begin + ms * 1000; i++) {
    double start = now_us();
    write_all(fd, message, sizeof message);
    read_all(fd, message, sizeof message);
    if (i >= WARM_UP || start > begin + ms * 1000 / 4) samples[taken++] = now_us() - start;
  }
  report(samples, taken);
}

static void short_connections(const char *address, const char *port, int count, double ms) {
  static double samples[MAX_SAMPLES];
  char answer[ANSWER], request[REQUEST] = {0};
  double end = now_us() + ms * 1000;
  int taken = 0;
  for (int i = -WARM_UP / 4; i < count && now_us() < end; i++) {
    double start = now_us();
    int fd = connected(address, port, SOCK_STREAM);
    write_all(fd, request, sizeof request);
    read_all(fd, answer, sizeof answer);
    close(fd);
    if (i >= 0) samples[taken++] = now_us() - start;
  }
  report(samples, taken);
}

static void udp(const char *address, const char *port, double rate, double ms) {
  char message[MESSAGE] = {0};
  int fd = connected(address, port, SOCK_DGRAM);
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  long sent = 0;
  double start = now_us();
  for (double now = start; now < start + ms * 1000; now = now_us()) {
    /* What is due by the end of this tick; without a rate, as many as a fast tick might have. */
    double due = rate > 0 ? (now - start + TICK_US) * rate / 1e6 : sent + BATCH;
    while (sent < due) {
      /* An error is an answer of ICMP to an earlier one, or a full queue: the datagram was offered. */
      (void)!send(fd, message, sizeof message, 0);
      sent++;
    }
    double left = start + TICK_US * (double)(long)((now - start) / TICK_US + 1) - now_us();
    if (rate > 0 && left > 0) {
      struct timespec pause = {.tv_nsec = (long)(left * 1000)};
      nanosleep(&pause, NULL);
    }
  }
  printf("{\"sent\":%ld,\"seconds\":%.6f}\n", sent, (now_us() - start) / 1e6);
}

static int bound(const char *port, int type) {
  int fd = socket(AF_INET, type, 0);
  int on = 1, room = 4 << 20;
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (type == SOCK_DGRAM) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  if (bind(fd, (struct sockaddr *)&any, sizeof any) < 0) fail("bind");
  if (type == SOCK_STREAM && listen(fd, 128) < 0) fail("listen");
  return fd;
}

static long receive_batch(int fd) {
  static char bytes[BATCH][2048];
  static struct iovec vectors[BATCH];
  static struct mmsghdr messages[BATCH];
  for (int i = 0; i < BATCH; i++) {
    vectors[i] = (struct iovec){.iov_base = bytes[i], .iov_len = sizeof bytes[i]};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
  }
  int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
  return count < 0 ? 0 : count;
}

static void serve(const char *echo_port, const char *answer_port, const char *udp_port) {
  enum { STDIN, ECHO, ANSWERS, DATAGRAMS, FIRST_CONNECTION };
  struct pollfd polled[FIRST_CONNECTION + MAX_CONNECTIONS] = {
      [STDIN] = {.fd = 0, .events = POLLIN},
      [ECHO] = {.fd = bound(echo_port, SOCK_STREAM), .events = POLLIN},
      [ANSWERS] = {.fd = bound(answer_port, SOCK_STREAM), .events = POLLIN},
      [DATAGRAMS] = {.fd = bound(udp_port, SOCK_DGRAM), .events = POLLIN},
  };
  /* Of a connection that wants an answer: how much of the request is missing. -1 is an echo's. */
  int missing[FIRST_CONNECTION + MAX_CONNECTIONS];
  static char bytes[65536], answer[ANSWER];
  int count = FIRST_CONNECTION;
  long datagrams = 0;
  puts("ready");
  fflush(stdout);
  for (;;) {
    if (poll(polled, count, -1) < 0) fail("poll");
    if (polled[DATAGRAMS].revents) datagrams += receive_batch(polled[DATAGRAMS].fd);
    for (int i = FIRST_CONNECTION; i < count; i++) {
      if (!polled[i].revents) continue;
      ssize_t length = recv(polled[i].fd, bytes, sizeof bytes, MSG_DONTWAIT);
      if (length < 0 && errno == EAGAIN) continue;
      int is_done = length <= 0;
      if (length > 0 && missing[i] < 0) {
        is_done = send(polled[i].fd, bytes, length, MSG_NOSIGNAL) < length;
      } else if (length > 0 && (missing[i] -= length) <= 0) {
        (void)!send(polled[i].fd, answer, sizeof answer, MSG_NOSIGNAL);
        is_done = 1;
      }
      if (!is_done) continue;
      close(polled[i].fd);
      count--;
      polled[i] = polled[count];
      missing[i] = missing[count];
      i--;
    }
    for (int listener = ECHO; listener <= ANSWERS; listener++) {
      if (!polled[listener].revents) continue;
      int fd = accept(polled[listener].fd, NULL, NULL), on = 1;
      if (fd < 0) continue;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      if (count == FIRST_CONNECTION + MAX_CONNECTIONS) {
        close(fd);
        continue;
      }
      polled[count] = (struct pollfd){.fd = fd, .events = POLLIN};
      missing[count++] = listener == ECHO ? -1 : REQUEST;
    }
    if (polled[STDIN].revents) {
      if (read(0, bytes, sizeof bytes) <= 0) return;
      while (poll(&polled[DATAGRAMS], 1, QUIET_MS) > 0) {
        datagrams += receive_batch(polled[DATAGRAMS].fd);
      }
      printf("{\"received\":%ld}\n", datagrams);
      fflush(stdout);
      datagrams = 0;
    }
  }
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  if (count == 5 && strcmp(what, "serve") == 0) {
    serve(words[2], words[3], words[4]);
  } else if (count == 6 && strcmp(what, "ping-pong") == 0 && atoi(words[4]) <= MAX_SAMPLES) {
    ping_pong(words[2], words[3], atoi(words[4]), atof(words[5]));
  } else if (count == 6 && strcmp(what, "connect") == 0 && atoi(words[4]) <= MAX_SAMPLES) {
    short_connections(words[2], words[3], atoi(words[4]), atof(words[5]));
  } else if (count == 6 && strcmp(what, "udp") == 0) {
    udp(words[2], words[3], atof(words[4]), atof(words[5]));
  } else {
    fprintf(stderr, "usage: at the top of load.c\n");
    return 2;
  }
  return 0;
}
