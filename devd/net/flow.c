/* Which flow a frame belongs to: several queues keep the frames of one in order. */
#include "devd/net/card.h"
#include <netinet/in.h>

/* Both directions have the same addresses and ports, so their exclusive or is the same. */
static uint32_t mix(uint32_t sum, const uint8_t *one, const uint8_t *other, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        sum = sum * 31 + (uint32_t)(one[i] ^ other[i]);
    }
    return sum;
}

unsigned net_flow(const uint8_t *head, size_t length)
{
    /* Ethernet and IP without options: others all share the flow of their addresses. */
    uint32_t sum = 0;

    if (length < NET_ETHERNET_BYTES + 40) {
        return 0;
    }
    const uint8_t *ip = head + NET_ETHERNET_BYTES;
    bool is_ip4 = head[12] == 0x08 && head[13] == 0x00 && ip[0] == 0x45;
    bool is_ip6 = head[12] == 0x86 && head[13] == 0xdd;
    const uint8_t *ports = ip + (is_ip4 ? 20 : 40);
    if (is_ip4) {
        sum = mix(ip[9], ip + 12, ip + 16, 4);
    } else if (is_ip6) {
        sum = mix(ip[6], ip + 8, ip + 24, 16);
    } else {
        return 0;
    }
    uint8_t protocol = is_ip4 ? ip[9] : ip[6];
    bool whole = is_ip6 || ((ip[6] & 0x3f) == 0 && ip[7] == 0);
    if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && whole &&
        (size_t)(ports + 4 - head) <= length) {
        sum = mix(sum, ports, ports + 2, 2);
    }
    return (sum * UINT32_C(2654435761)) >> 24;
}
