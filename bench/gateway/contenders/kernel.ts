/**
 * The upper bounds: the kernel alone, with routing and with NAT. Nothing is encrypted.
 * @module
 */
import { type Contender, missingPrograms } from '../contender.ts';
import { CLOUD_WAN, EDGE_WAN } from '../scene.ts';

export const plain: Contender = {
  name: 'plain',
  about: 'routing by the kernel',
  plan: 'different',
  hasUdp: true,
  missing: () => undefined,
  async start({ edge, cloud, clientLan, serviceLan }) {
    await edge.sh(`${FORWARD}; ip route add ${serviceLan.prefix} via ${CLOUD_WAN}`);
    await cloud.sh(`${FORWARD}; ip route add ${clientLan.prefix} via ${EDGE_WAN}`);
    return { address: serviceLan.host, programs: [] };
  },
};

export const nft: Contender = {
  name: 'nft',
  about: "NAT by the kernel's nftables at both gateways",
  plan: 'same',
  hasUdp: true,
  missing: () => missingPrograms({ nft: 'nftables' }),
  async start({ edge, cloud, serviceLan }) {
    const rules = (from: string, own: string, to: string, out: string, source: string) => `
      ${FORWARD}
      ip address add ${PRESENCE}/24 dev lan0
      nft -f - <<END
      table ip bench {
        chain in {
          type nat hook prerouting priority dstnat
          iifname "${from}" ip daddr ${own} dnat to ${to}
        }
        chain out {
          type nat hook postrouting priority srcnat
          oifname "${out}" snat to ${source}
        }
      }
      END
    `;
    await edge.sh(rules('lan0', PRESENCE, CLOUD_WAN, 'wan0', EDGE_WAN).replace(/^ +/gm, ''));
    await cloud.sh(
      rules('wan0', CLOUD_WAN, serviceLan.host, 'lan0', PRESENCE).replace(/^ +/gm, '')
    );
    return { address: PRESENCE, programs: [] };
  },
};

/** Lets a host route. */
export const FORWARD = 'echo 1 >/proc/sys/net/ipv4/ip_forward';

/** The addresses that stand for the service at the edge, and for the client in the cloud. */
export const PRESENCE = '10.0.0.129';
