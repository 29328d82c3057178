/* datagram PORT: print the first datagram that comes to that port, and send it back. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in6 own = {.sin6_family = AF_INET6}, peer;
    socklen_t length = sizeof(peer);
    static char bytes[65536];

    if (argc != 2) {
        fprintf(stderr, "usage: datagram PORT\n");
        return 2;
    }
    own.sin6_port = htons((uint16_t)atoi(argv[1]));
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0) {
        perror("datagram");
        return 1;
    }
    ssize_t size = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&peer, &length);
    if (size < 0 || sendto(fd, bytes, (size_t)size, 0, (struct sockaddr *)&peer, length) != size) {
        perror("datagram");
        return 1;
    }
    fwrite(bytes, 1, (size_t)size, stdout);
    return 0;
}
