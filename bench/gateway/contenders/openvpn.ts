/**
 * OpenVPN in user space, UDP, AES-256-GCM, certificates on both sides.
 * @module
 */
import { makeCertificates } from '../certificates.ts';
import { type Contender, LIFETIME_SECONDS, missingPrograms } from '../contender.ts';
import { CLOUD_WAN } from '../scene.ts';
import { FORWARD } from './kernel.ts';

export const openvpn: Contender = {
  name: 'openvpn',
  about: 'OpenVPN over UDP, AES-256-GCM, mutual TLS',
  plan: 'different',
  hasUdp: true,
  missing: () => missingPrograms({ openvpn: 'openvpn', openssl: 'openssl' }),
  async start({ directory, edge, cloud, clientLan, serviceLan }) {
    const certificates = makeCertificates(directory);
    const common = ({ ca, certificate, key }: typeof certificates.edge) => [
      ...['openvpn', '--dev', 'tun0', '--proto', 'udp', '--disable-dco', '--port', '1194'],
      ...['--data-ciphers', 'AES-256-GCM', '--tls-version-min', '1.3'],
      ...['--ca', ca, '--cert', certificate, '--key', key],
      // Settings that its users choose for speed.
      ...['--sndbuf', '4194304', '--rcvbuf', '4194304', '--txqueuelen', '1000', '--fast-io'],
    ];
    await edge.sh(FORWARD);
    await cloud.sh(FORWARD);
    const server = cloud.start(
      [
        ...common(certificates.cloud),
        ...['--tls-server', '--dh', 'none', '--remote-cert-tls', 'client'],
        ...['--ifconfig', CLOUD_TUN, EDGE_TUN, ...routeTo(clientLan.prefix)],
      ],
      LIFETIME_SECONDS
    );
    const client = edge.start(
      [
        ...common(certificates.edge),
        ...['--tls-client', '--remote', CLOUD_WAN, '--remote-cert-tls', 'server'],
        ...['--ifconfig', EDGE_TUN, CLOUD_TUN, ...routeTo(serviceLan.prefix)],
      ],
      LIFETIME_SECONDS
    );
    await Promise.all([server, client].map((each) => each.printed(/Sequence Completed/, 20_000)));
    return { address: serviceLan.host, programs: [server, client] };
  },
};

function routeTo(prefix: string): string[] {
  return ['--route', prefix.replace(/\/24$/, ''), '255.255.255.0'];
}

const CLOUD_TUN = '10.8.0.1';
const EDGE_TUN = '10.8.0.2';
