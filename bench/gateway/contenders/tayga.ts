/**
 * TAYGA: translation from IPv6 to IPv4 in user space, at the cloud gateway alone, not encrypted.
 * @module
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Contender, LIFETIME_SECONDS, missingPrograms } from '../contender.ts';

export const tayga: Contender = {
  name: 'tayga',
  about: 'TAYGA (NAT64) at the cloud gateway alone, nothing encrypted',
  plan: 'different',
  hasUdp: true,
  missing: () => missingPrograms({ tayga: 'tayga' }),
  async start({ directory, client, edge, cloud, serviceLan }) {
    const path = join(directory, 'tayga.conf');
    writeFileSync(
      path,
      `tun-device nat64
      ipv4-addr 192.168.255.1
      prefix ${PREFIX}/96
      dynamic-pool 192.168.255.0/24
      data-dir ${directory}\n`.replace(/^ +/gm, '')
    );
    await client.sh(`
      ip address add fd00:1::5/64 dev eth0 nodad
      ip -6 route add default via fd00:1::1
    `);
    await edge.sh(`
      echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
      ip address add fd00:1::1/64 dev lan0 nodad
      ip address add fd00:99::11/64 dev wan0 nodad
      ip route add ${PREFIX}/96 via fd00:99::1
    `);
    await cloud.get(['tayga', '-c', path, '--mktun']);
    await cloud.sh(`
      echo 1 >/proc/sys/net/ipv4/ip_forward
      echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
      ip address add fd00:99::1/64 dev wan0 nodad
      ip route add fd00:1::/64 via fd00:99::11
      ip link set nat64 up
      ip route add ${PREFIX}/96 dev nat64
      ip route add 192.168.255.0/24 dev nat64
    `);
    const program = cloud.start(['tayga', '-c', path, '--nodetach'], LIFETIME_SECONDS);
    return { address: `${PREFIX}${serviceLan.host}`, programs: [program] };
  },
};

/** A prefix of our own: the well-known one is not for private IPv4 addresses (RFC 6052, section 3.1). */
const PREFIX = 'fd00:64::';
