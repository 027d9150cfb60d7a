/**
 * Overlay networks in user space, written in Go: nebula and wireguard-go. Both route between LANs
 * whose prefixes differ.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { eventually } from '../../../test/support/gateway-process.ts';
import type { Host } from '../../../test/support/network.ts';
import { type Contender, LIFETIME_SECONDS, missingPrograms } from '../contender.ts';
import { CLOUD_WAN } from '../scene.ts';
import { FORWARD } from './kernel.ts';

export const nebula: Contender = {
  name: 'nebula',
  about: 'nebula, AES-256-GCM, certificates',
  plan: 'different',
  hasUdp: true,
  missing: () => missingPrograms({ nebula: 'nebula', 'nebula-cert': 'nebula' }),
  async start({ directory, edge, cloud, clientLan, serviceLan }) {
    const at = (name: string) => join(directory, name);
    const ca = { key: at('nebula-ca.key'), certificate: at('nebula-ca.crt') };
    const nebulaCert = (...args: string[]) => execFileSync('nebula-cert', args, { stdio: 'pipe' });
    nebulaCert('ca', '-name', 'bench', '-out-key', ca.key, '-out-crt', ca.certificate);
    const start = (host: Host, address: string, lan: string, peer: string, peerLan: string) => {
      const { name } = host;
      const isCloud = host === cloud;
      const pki = { ca: ca.certificate, cert: at(`${name}.crt`), key: at(`${name}.nebula.key`) };
      nebulaCert(
        ...['sign', '-name', name, '-ip', `${address}/24`, '-subnets', lan],
        ...['-ca-key', ca.key, '-ca-crt', ca.certificate],
        ...['-out-key', pki.key, '-out-crt', pki.cert]
      );
      const anyone = [{ port: 'any', proto: 'any', host: 'any' }];
      const config = {
        pki,
        static_host_map: isCloud ? {} : { [peer]: [`${CLOUD_WAN}:4242`] },
        lighthouse: { am_lighthouse: isCloud, hosts: isCloud ? [] : [peer] },
        listen: { host: '0.0.0.0', port: 4242, read_buffer: 4194304, write_buffer: 4194304 },
        cipher: 'aes',
        punchy: { punch: true },
        // 60 bytes are its header, UDP and IPv4.
        tun: {
          dev: 'nebula1',
          mtu: 1440,
          tx_queue: 1000,
          unsafe_routes: [{ route: peerLan, via: peer }],
        },
        logging: { level: 'info' },
        firewall: { outbound: anyone, inbound: anyone },
      };
      writeFileSync(at(`${name}.nebula.yaml`), stringify(config));
      return host.start(['nebula', '-config', at(`${name}.nebula.yaml`)], LIFETIME_SECONDS);
    };
    await edge.sh(FORWARD);
    await cloud.sh(FORWARD);
    const programs = [
      start(cloud, NEBULA_CLOUD, serviceLan.prefix, NEBULA_EDGE, clientLan.prefix),
      start(edge, NEBULA_EDGE, clientLan.prefix, NEBULA_CLOUD, serviceLan.prefix),
    ];
    await Promise.all(programs.map((each) => each.printed(/interface is active/i)));
    return { address: serviceLan.host, programs };
  },
};

export const wireguardGo: Contender = {
  name: 'wireguardGo',
  about: 'WireGuard in user space (wireguard-go)',
  plan: 'different',
  hasUdp: true,
  missing: () => missingPrograms({ 'wireguard-go': 'wireguard-go', wg: 'wireguard-tools' }),
  async start({ directory, edge, cloud, clientLan, serviceLan }) {
    const keys = (name: string) => {
      const file = join(directory, `${name}.wg.key`);
      const secret = execFileSync('wg', ['genkey']);
      writeFileSync(file, secret, { mode: 0o600 });
      const open = execFileSync('wg', ['pubkey'], { input: secret, encoding: 'latin1' }).trim();
      return { file, open };
    };
    const [edgeKeys, cloudKeys] = [keys('edge'), keys('cloud')];
    const start = async (host: Host, key: string, peer: readonly string[], route: string) => {
      // Its control sockets are named after the interface, and must not be those of the machine.
      await host.sh(`${FORWARD}; mount -t tmpfs none /run; mkdir -p /run/wireguard`);
      const program = host.start(
        ['env', 'WG_PROCESS_FOREGROUND=1', 'wireguard-go', '-f', 'wg0'],
        LIFETIME_SECONDS
      );
      await eventually('the socket of wireguard-go', async () => {
        if (program.child.exitCode !== null) throw new Error(program.text);
        const { code } = await host.run(['test', '-S', '/run/wireguard/wg0.sock']);
        return code === 0 || undefined;
      });
      await host.get(['wg', 'set', 'wg0', 'private-key', key, 'listen-port', '51820', ...peer]);
      await host.sh(`ip link set wg0 mtu 1420 up; ip route add ${route} dev wg0`);
      return program;
    };
    const programs = [
      await start(
        cloud,
        cloudKeys.file,
        ['peer', edgeKeys.open, 'allowed-ips', clientLan.prefix],
        clientLan.prefix
      ),
      await start(
        edge,
        edgeKeys.file,
        [
          ...['peer', cloudKeys.open, 'allowed-ips', serviceLan.prefix],
          ...['endpoint', `${CLOUD_WAN}:51820`],
        ],
        serviceLan.prefix
      ),
    ];
    return { address: serviceLan.host, programs };
  },
};

const NEBULA_CLOUD = '10.9.0.1';
const NEBULA_EDGE = '10.9.0.2';
