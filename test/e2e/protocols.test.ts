/**
 * What IP requires of the path between two sites, tested with the kernel's own stacks and its usual tools at
 * both ends, and the gateways as processes in between: `protocols-scene.ts` draws the networks.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually, killGateways, Workspace } from '../support/gateway-process.ts';
import {
  type Host,
  Network,
  type Output,
  type Program,
  whatIsMissing,
} from '../support/network.ts';
import {
  GATEWAY,
  type Hosts,
  resolve,
  Scene,
  type SiteName,
  UNUSED_PRESENCE,
  type Verdicts,
  ZONE,
} from './protocols-scene.ts';
import { testData } from './test-data.ts';

const skipReason = whatIsMissing({
  curl: 'curl',
  nft: 'nftables',
  ping: 'iputils-ping',
  socat: 'socat',
  tcpdump: 'tcpdump',
  tracepath: 'iputils-tracepath',
  traceroute: 'traceroute',
});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const title = `protocols between sites${isSkipped ? ` (skipped: ${skipReason})` : ''}`;

/** tcpdump changes its user, which a user namespace with one user does not allow. */
const cannotCapture = process.getuid?.() !== 0;
const captureReason = cannotCapture ? ' (skipped: tcpdump needs root)' : '';

describe.skipIf(isSkipped)(title, { timeout: 120_000 }, () => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let scene: Scene;
  let hosts: Hosts;
  /** The addresses of the other hosts as each host finds them, by name. */
  const at = { service: {}, a: {}, b: {}, narrowA: {}, c: {} } as Record<
    keyof Hosts,
    Record<string, string>
  >;
  let dataPath: string;
  const dataHash = createHash('sha256').update(testData()).digest('hex');

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    network = await Network.create(workspace.newDirectory());
    scene = await Scene.start(network, workspace.newDirectory());
    hosts = scene.hosts;
    const names: readonly [keyof Hosts, readonly string[]][] = [
      ['service', ['host-a', 'narrow-a', 'host-b', 'host-c']],
      ['a', ['service', 'narrow']],
      ['narrowA', ['service']],
      ['b', ['service']],
      ['c', ['service', 'narrow']],
    ];
    for (const [host, others] of names) {
      for (const name of others) at[host][name] = await resolve(hosts[host], name);
    }
    dataPath = join(workspace.newDirectory(), 'data');
    writeFileSync(dataPath, testData());
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  /** Downloads the data and returns its hash; no step waits longer than the deadline. */
  const download = async (host: Host, authority: string): Promise<string> => {
    const url = `http://${authority}:8080/data`;
    const hash = await host.sh(`curl -sS --max-time 60 ${url} | sha256sum`);
    return hash.split(' ')[0]!;
  };
  /** Uploads the data and returns the hash of what arrived. */
  const upload = (host: Host, authority: string): Promise<string> =>
    host.get(['curl', '-sS', '--max-time', '60', '-T', dataPath, `http://${authority}:8080/data`]);
  const whoAmI = (host: Host, authority: string): Promise<string> =>
    host.get(['curl', '-sS', '--max-time', '60', `http://${authority}:8080/whoami`]);

  /** Sends a datagram with socat, and waits until its echo has come. */
  const echo = async (host: Host, address: string, payload: string): Promise<void> => {
    const program = host.start(['socat', '-b65535', '-t0.2', '-', address]);
    program.write(payload);
    try {
      await eventually(
        `an echo of ${payload.length} bytes by ${address}`,
        () => {
          if (program.child.exitCode !== null) throw new Error(program.stderr);
          return program.stdout.length >= payload.length ? true : undefined;
        },
        8_000
      );
      expect(program.stdout === payload, 'the echo is not what was sent').toBe(true);
    } finally {
      program.child.stdin!.end();
    }
  };

  const rise = async (
    site: SiteName,
    verdict: string,
    what: () => Promise<unknown>
  ): Promise<number> => {
    const before: Verdicts = await scene.verdicts(site);
    await what();
    return (await scene.verdicts(site))[verdict]! - before[verdict]!;
  };

  describe('routes', () => {
    interface Route {
      readonly from: keyof Hosts;
      readonly site: SiteName;
      readonly to: string;
    }
    const ROUTES: readonly (readonly [title: string, route: Route])[] = [
      ['site A to the cloud', { from: 'a', site: 'site-a', to: 'service' }],
      ['the cloud to site A', { from: 'service', site: 'cloud', to: 'host-a' }],
      ['site C (IPv6) to the cloud (IPv4)', { from: 'c', site: 'site-c', to: 'service' }],
      ['the cloud (IPv4) to site C (IPv6)', { from: 'service', site: 'cloud', to: 'host-c' }],
    ];

    describe.each(ROUTES)('from %s', (_, { from, site, to }) => {
      test.each([
        ['UDP', []],
        ['ICMP', ['-I']],
        ['TCP', ['-T', '-p', '8080']],
      ])('traceroute by %s shows both gateways and the destination', async (_, flags) => {
        const presence = at[from][to]!;
        const command = ['traceroute', '-n', '-q', '1', '-w', '4', '-m', '8', ...flags, presence];
        const { code, text } = await hosts[from].run(command);
        // The gateway at the other side answers with the address of the packet's destination.
        expect({ code, hops: hopsOf(text) }, text).toEqual({
          code: 0,
          hops: [GATEWAY[site], presence, presence],
        });
      });

      test('tracepath reaches the destination and finds the MTU', async () => {
        const presence = at[from][to]!;
        const { code, text } = await hosts[from].run(['tracepath', '-n', '-m', '8', presence]);
        expect(code, text).toBe(0);
        expect(text).toMatch(new RegExp(`^ 1: +${GATEWAY[site]} `, 'm'));
        expect(text).toMatch(new RegExp(`^ 3: +${presence} .*reached`, 'm'));
        // A packet of 1500 bytes becomes shorter from IPv6 to IPv4; in the other direction it does not fit.
        const pmtu = to === 'host-c' ? 1480 : 1500;
        expect(text).toMatch(new RegExp(`Resume: pmtu ${pmtu} hops 3 `));
      });
    });
  });

  describe('path MTU discovery', () => {
    /** Clears the path MTUs that the host has learnt. */
    const forget = (host: Host): Promise<string> =>
      host.sh('ip route flush cache; ip -6 route flush cache');
    const ping = async (host: Host, address: string, ...flags: string[]): Promise<Output> => {
      await forget(host);
      return host.run(['ping', '-n', '-c', '2', '-i', '0.2', '-W', '3', ...flags, address]);
    };
    const learntMtu = async (host: Host, address: string): Promise<string | undefined> => {
      const route = await host.get(['ip', 'route', 'get', address]);
      return /\bmtu (\d+)/.exec(route)?.[1];
    };

    test('a narrow link behind the cloud’s gateway: ping at the site learns its MTU', async () => {
      const { code, text } = await ping(hosts.a, at.a.narrow!, '-M', 'do', '-s', '1400');
      expect(text).toContain(`From ${at.a.narrow} icmp_seq=1 Frag needed and DF set (mtu = 1300)`);
      expect(code).toBe(1);
      const fitting = await ping(hosts.a, at.a.narrow!, '-M', 'do', '-s', '1272');
      expect(fitting.code, fitting.text).toBe(0);
    });

    test('a narrow link behind the cloud’s gateway: an upload from the site adapts', async () => {
      await forget(hosts.a);
      expect(await upload(hosts.a, at.a.narrow!)).toBe(dataHash);
      expect(await learntMtu(hosts.a, at.a.narrow!)).toBe('1300');
    });

    test('a narrow link behind the site’s gateway: ping in the cloud learns its MTU', async () => {
      const presence = at.service['narrow-a']!;
      const { code, text } = await ping(hosts.service, presence, '-M', 'do', '-s', '1400');
      expect(text).toContain(`From ${presence} icmp_seq=1 Frag needed and DF set (mtu = 1300)`);
      expect(code).toBe(1);
      const fitting = await ping(hosts.service, presence, '-M', 'do', '-s', '1272');
      expect(fitting.code, fitting.text).toBe(0);
    });

    test('a narrow link behind the site’s gateway: a download to the site adapts', async () => {
      await forget(hosts.service);
      expect(await download(hosts.narrowA, at.narrowA.service!)).toBe(dataHash);
      expect(await learntMtu(hosts.service, at.service['narrow-a']!)).toBe('1300');
    });

    test('a narrow link in the cloud: ping6 at site C learns its MTU, as IPv6 counts it', async () => {
      const { code, text } = await ping(hosts.c, at.c.narrow!, '-M', 'do', '-s', '1400');
      expect(text).toContain(`From ${at.c.narrow} icmp_seq=1 Packet too big: mtu=1320`);
      expect(code).toBe(1);
      const fitting = await ping(hosts.c, at.c.narrow!, '-M', 'do', '-s', '1272');
      expect(fitting.code, fitting.text).toBe(0);
    });

    test('a narrow link in the cloud: an upload from site C adapts', async () => {
      await forget(hosts.c);
      expect(await upload(hosts.c, `[${at.c.narrow}]`)).toBe(dataHash);
      expect(await learntMtu(hosts.c, at.c.narrow!)).toBe('1320');
    });

    test('the mtu of a site: the translator itself reports it to ping and tracepath', async () => {
      const presence = at.service['host-b']!;
      let answer: Output | undefined;
      const dropped = await rise('cloud', 'DropTooBig', async () => {
        answer = await ping(hosts.service, presence, '-M', 'do', '-s', '1400');
      });
      expect(answer!.text).toContain(
        `From ${presence} icmp_seq=1 Frag needed and DF set (mtu = 1400)`
      );
      // The second one does not leave the host.
      expect(dropped).toBe(1);
      await forget(hosts.service);
      const path = await hosts.service.run(['tracepath', '-n', '-m', '8', presence]);
      expect(path.text).toMatch(/Resume: pmtu 1400 hops 3 /);
    });

    test('the mtu of a site: packets without DF arrive in fragments', async () => {
      const reassembled = await reassembledAt(hosts.b);
      const { code, text } = await ping(
        hosts.service,
        at.service['host-b']!,
        ...['-M', 'dont', '-s', '1400']
      );
      expect(code, text).toBe(0);
      expect((await reassembledAt(hosts.b)) - reassembled).toBe(2);
    });

    test.skipIf(cannotCapture).each([
      // The first pair is the SYN as it is sent and as it arrives; the second pair is the answer.
      ['to the cloud, from a site of 1400', 'b', 'service', 'service', [1460, 1360, 1460, 1360]],
      ['to a site of 1400, from the cloud', 'service', 'host-b', 'b', [1460, 1360, 1460, 1360]],
      ['between sites without mtu', 'a', 'service', 'service', [1460, 1460, 1460, 1460]],
      // Packets of IPv6 have 20 bytes less for data.
      ['to the cloud, from the IPv6 site', 'c', 'service', 'service', [1440, 1440, 1460, 1440]],
      ['to the IPv6 site, from the cloud', 'service', 'host-c', 'c', [1460, 1440, 1440, 1440]],
    ] as const)(`the MSS of a connection %s${captureReason}`, async (_, from, to, far, mss) => {
      const [client, server] = [hosts[from], hosts[far]];
      const [sent, received] = await Promise.all([
        capture(client, SYN_OF_HTTP),
        capture(server, SYN_OF_HTTP),
      ]);
      const presence = at[from][to]!;
      const authority = presence.includes(':') ? `[${presence}]` : presence;
      await forget(hosts.service);
      expect(await download(client, authority)).toBe(dataHash);
      await forget(hosts.service);
      expect(await upload(client, authority)).toBe(dataHash);
      for (const each of [sent, received]) await each.printed(/(Flags \[S\.\][\s\S]*){2}/);
      const seen = (program: Program, flags: string) =>
        program.stdout
          .split('\n')
          .filter((line) => line.includes(`Flags [${flags}]`))
          .map((line) => Number(/mss (\d+)/.exec(line)?.[1]));
      const all = [seen(sent, 'S'), seen(received, 'S'), seen(received, 'S.'), seen(sent, 'S.')];
      expect(all).toEqual(mss.map((each) => [each, each]));
    });
  });

  describe('datagrams larger than the MTU', () => {
    const LARGE = Buffer.from(testData(8000)).toString('latin1');

    test.each([
      ['site A to the cloud', 'a', 'service', 'service'],
      ['the cloud to site A', 'service', 'host-a', 'a'],
      ['site B, whose mtu is smaller, to the cloud', 'b', 'service', 'service'],
      ['the cloud to site B, whose mtu is smaller', 'service', 'host-b', 'b'],
    ] as const)(
      'from %s: ping and UDP pass in fragments, in both directions',
      async (_, from, to, far) => {
        const [client, server] = [hosts[from], hosts[far]];
        const before = await Promise.all([client, server].map(reassembledAt));
        const ping = [
          'ping',
          '-n',
          '-c',
          '3',
          '-i',
          '0.2',
          '-W',
          '20',
          '-s',
          '4000',
          at[from][to]!,
        ];
        const { code, text } = await client.run(ping);
        expect(text).toContain('3 packets transmitted, 3 received, 0% packet loss');
        expect(code).toBe(0);
        await echo(client, `UDP4:${at[from][to]}:7777`, LARGE);
        const after = await Promise.all([client, server].map(reassembledAt));
        expect(after.map((count, i) => count - before[i]!)).toEqual([4, 4]);
      }
    );

    test('between site C and the cloud UDP passes in fragments, in both directions', async () => {
      await echo(hosts.c, `UDP6:[${at.c.service}]:7777`, LARGE);
      await echo(hosts.service, `UDP4:${at.service['host-c']}:7777`, LARGE);
    });

    test('from the cloud to site C without mtu, UDP passes in fragments too', async () => {
      // RFC 7915 section 4: packets without DF are fragmented to 1280 bytes.
      await scene.withoutMtu('site-c', async () => {
        const address = `UDP4-DATAGRAM:${at.service['host-c']}:7777`;
        const program = hosts.service.start(['socat', '-b65535', '-t0.2', '-', address]);
        try {
          // The sender may learn the MTU from the first datagrams; later ones must pass.
          await eventually(
            'an echo of 8000 bytes',
            async () => {
              program.write(LARGE);
              await program.printed(/./, 300).catch(() => {});
              return program.stdout.length > 0 ? true : undefined;
            },
            4_000
          );
        } finally {
          program.child.stdin!.end();
        }
      });
    });
  });

  describe('other protocols', () => {
    test('UDP-Lite, SCTP and GRE pass if this kernel supports them, a raw protocol always', async () => {
      const { a, b, service } = hosts;
      const passed: string[] = [];
      const leftOut: string[] = [];

      service.start(['socat', 'IP4-RECVFROM:99,fork', 'PIPE']);
      await eventually('the echo of protocol 99', async () => {
        const sockets = await service.get(['cat', '/proc/net/raw']);
        return /:0063 /.test(sockets) ? true : undefined;
      });
      for (const [host, presence] of [
        [a, at.a.service!],
        [b, at.b.service!],
      ] as const) {
        await echo(host, `IP4-SENDTO:${presence}:99`, `protocol 99 from ${host.name}`);
      }
      passed.push('ip/99');

      const socketOf = (address: string) => ['socat', '-u', 'OPEN:/dev/null', address];
      if (await has(service, socketOf(`SOCKET-SENDTO:2:2:136:${socketAddress('127.0.0.1')}`))) {
        await echoUdpLite(a, at.a.service!, service, '0.0.0.0');
        await echoUdpLite(b, at.b.service!, service, '0.0.0.0');
        await echoUdpLite(service, at.service['host-c']!, hosts.c, '::');
        passed.push('UDP-Lite');
      } else {
        leftOut.push('UDP-Lite');
      }

      if (await has(service, socketOf('SCTP4-LISTEN:7776,accept-timeout=0.1'))) {
        service.start(['socat', 'SCTP4-LISTEN:7777,bind=10.0.0.5,fork', 'PIPE']);
        await eventually('the SCTP service', async () => {
          const endpoints = await service.get(['cat', '/proc/net/sctp/eps']);
          return /\b7777\b/.test(endpoints) ? true : undefined;
        });
        await echo(a, `SCTP4:${at.a.service}:7777,bind=10.0.0.5`, 'SCTP from site A');
        passed.push('SCTP');
      } else {
        leftOut.push('SCTP');
      }

      const tunnel = (remote: string, address: string) => `
        ip link add gre1 type gre local 10.0.0.5 remote ${remote}
        ip address add ${address}/30 dev gre1
        ip link set gre1 up
      `;
      const gre = ['ip', 'link', 'add', 'gre9', 'type', 'gre', 'remote', '192.0.2.9'];
      if (await has(service, gre)) {
        await service.sh(tunnel(at.service['host-a']!, '192.0.2.1'));
        await a.sh(tunnel(at.a.service!, '192.0.2.2'));
        await a.get(['ping', '-n', '-c', '3', '-i', '0.2', '-W', '20', '192.0.2.1']);
        passed.push('GRE');
      } else {
        leftOut.push('GRE');
      }
      console.log(
        `passed: ${passed.join(', ')}; not in this kernel: ${leftOut.join(', ') || 'none'}`
      );
      expect(passed.length).toBeGreaterThanOrEqual(1);
    });

    /** The echo is for one datagram: socat would send a second one to the first sender. */
    async function echoUdpLite(
      client: Host,
      presence: string,
      server: Host,
      any: '0.0.0.0' | '::'
    ): Promise<void> {
      const domain = any === '::' ? 10 : 2;
      const address = `SOCKET-RECVFROM:${domain}:2:136:${socketAddress(any)}`;
      const program = server.start(['socat', '-T0.2', address, 'PIPE']);
      await eventually('the echo of UDP-Lite', async () => {
        const sockets = await server.sh('cat /proc/net/udplite*');
        return /:1E61 /.test(sockets) ? true : undefined;
      });
      const to = `SOCKET-SENDTO:2:2:136:${socketAddress(presence)}`;
      await echo(client, to, `UDP-Lite from ${client.name}`);
      await program.ended;
    }
  });

  describe('IPv6 and IPv4', () => {
    test('the IPv6 site resolves the IPv4 service to AAAA, and to no A', async () => {
      expect(at.c.service).toMatch(/^fd00:0:0:1::/);
      const { code, stdout } = await hosts.c.run(['getent', 'ahostsv4', `service.${ZONE}`]);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    });

    test('a transfer of some MB is complete, down and up', async () => {
      expect(await download(hosts.c, `service.${ZONE}`)).toBe(dataHash);
      expect(await upload(hosts.c, `service.${ZONE}`)).toBe(dataHash);
    });

    test('ping6 is answered, and ping in the other direction', async () => {
      for (const [host, name] of [
        [hosts.c, 'service'],
        [hosts.service, 'host-c'],
      ] as const) {
        const ping = ['ping', '-c', '3', '-i', '0.2', '-W', '20', `${name}.${ZONE}`];
        const { text } = await host.run(ping);
        expect(text).toContain('3 packets transmitted, 3 received, 0% packet loss');
      }
    });

    test('whois names the IPv6 client behind its IPv4 address', async () => {
      const client = await whoAmI(hosts.c, `service.${ZONE}`);
      expect(client).toMatch(/^10\.0\.0\.\d+$/);
      const whois = await scene.callAdmin('GET', `/v1/whois?site=cloud&address=${client}`);
      expect(whois).toMatchObject({ site: 'site-c', address: 'fd00::5' });
    });

    test('the IPv4 host of the cloud reaches the IPv6 service, complete in both directions', async () => {
      expect(at.service['host-c']).toMatch(/^10\.0\.0\.\d+$/);
      expect(await download(hosts.service, `host-c.${ZONE}`)).toBe(dataHash);
      expect(await upload(hosts.service, `host-c.${ZONE}`)).toBe(dataHash);
      const client = await whoAmI(hosts.service, `host-c.${ZONE}`);
      expect(client).toMatch(/^fd00:0:0:1::/);
      const whois = await scene.callAdmin('GET', `/v1/whois?site=site-c&address=${client}`);
      expect(whois).toMatchObject({ site: 'cloud', address: '10.0.0.5' });
    });
  });

  describe('refused connections', () => {
    /** Returns what curl reports within a limit far below the timeout of TCP. */
    const connect = async (host: Host, authority: string, port: number, seconds = 5) => {
      const url = `http://${authority}:${port}/whoami`;
      // 7: could not connect, 28: timed out.
      const { code, stderr } = await host.run([
        ...['curl', '-sS', '--connect-timeout', String(seconds), url],
      ]);
      return { code, stderr };
    };
    const datagram = async (host: Host, address: string): Promise<Program> => {
      const program = host.start(['socat', '-', address]);
      program.write('refused');
      return program;
    };

    test('the service on the port answers hosts of its own site', async () => {
      expect(await hosts.service.get(['curl', '-sS', 'http://10.0.0.5:8081/whoami'])).toBe(
        '10.0.0.5'
      );
    });

    test.each([
      ['a port that is not exposed', () => at.a.service!],
      ['an address that is not a presence', () => UNUSED_PRESENCE['site-a']],
    ])('reject: reset: TCP to %s is reset, UDP is refused at once', async (_, address) => {
      const { code, stderr } = await connect(hosts.a, address(), 8081);
      expect(stderr).toMatch(/Connection refused|Couldn't connect/);
      expect(code).toBe(7);
      await refusedTcp(hosts.a, `TCP4:${address()}:8081`, /Connection refused/);
      const program = await datagram(hosts.a, `UDP4:${address()}:7778`);
      await program.printed(/Connection refused/, 5_000);
    });

    test.each([
      ['a port that is not exposed', () => at.c.service!],
      ['an address that is not a presence', () => UNUSED_PRESENCE['site-c']],
    ])(
      'reject: reset, over IPv6: TCP to %s is reset, UDP is refused at once',
      async (_, address) => {
        const { code } = await connect(hosts.c, `[${address()}]`, 8081);
        expect(code).toBe(7);
        await refusedTcp(hosts.c, `TCP6:[${address()}]:8081`, /Connection refused/);
        const program = await datagram(hosts.c, `UDP6:[${address()}]:7778`);
        await program.printed(/Connection refused/, 5_000);
      }
    );

    test.each([
      ['a port that is not exposed', () => at.b.service!],
      ['an address that is not a presence', () => UNUSED_PRESENCE['site-b']],
    ])('reject: unreachable: TCP and UDP to %s are refused at once', async (_, address) => {
      expect((await connect(hosts.b, address(), 8081)).code).toBe(7);
      await refusedTcp(hosts.b, `TCP4:${address()}:8081`, /No route to host/);
      const program = await datagram(hosts.b, `UDP4:${address()}:7778`);
      await program.printed(/No route to host/, 5_000);
      const ping = await hosts.b.run([
        'ping',
        '-n',
        '-c',
        '1',
        '-W',
        '3',
        UNUSED_PRESENCE['site-b'],
      ]);
      expect(ping.text).toContain(`From ${UNUSED_PRESENCE['site-b']} icmp_seq=1 Packet filtered`);
    });

    test.skipIf(cannotCapture)(`drop: there is no answer${captureReason}`, async () => {
      const presence = at.service['host-a']!;
      const seen = await capture(hosts.service, `host ${presence}`);
      const dropped = await rise('cloud', 'DropNotPermitted', async () => {
        expect((await connect(hosts.service, presence, 8081, 1.5)).code).toBe(28);
      });
      expect(dropped).toBeGreaterThanOrEqual(1);
      await seen.printed(new RegExp(`> ${presence}\\.8081: Flags \\[S\\]`));
      expect(seen.stdout).not.toContain(`IP ${presence}`);
    });

    /** Connects with socat, which reports the refusal; `timeout` ends it if there is no answer. */
    async function refusedTcp(host: Host, address: string, says: RegExp): Promise<void> {
      const { code, stderr } = await host.run(['socat', '-u', address, 'STDOUT'], 5);
      expect(stderr).toMatch(says);
      expect(code).toBe(1);
    }
  });

  describe('replies', () => {
    test('an unsolicited datagram from the service’s port is refused and counted', async () => {
      const { a, service } = hosts;
      const client = a.start(['socat', '-', `UDP4-DATAGRAM:${at.a.service}:9999,bind=:40000`]);
      const server = service.start([
        ...['socat', '-', `UDP4-DATAGRAM:${at.service['host-a']}:40000,bind=:9999`],
      ]);
      const before = (await scene.verdicts('cloud')).DropNoSession!;
      server.write('unsolicited\n');
      await eventually('a rise of DropNoSession', async () => {
        const { DropNoSession } = await scene.verdicts('cloud');
        return DropNoSession === before + 1 ? true : undefined;
      });
      client.write('request\n');
      await server.printed(/^request$/m);
      server.write('reply\n');
      await client.printed(/^reply$/m);
      expect(client.stdout).toBe('reply\n');
      expect((await scene.verdicts('cloud')).DropNoSession).toBe(before + 1);
    });
  });
});

/** A filter for tcpdump, whose `tcp[]` supports IPv4 only. */
const SYN_OF_HTTP: string =
  'tcp port 8080 and ((ip and tcp[tcpflags] & tcp-syn != 0) or (ip6 and ip6[53] & 2 != 0))';

/** Returns the addresses of the hops in the output of traceroute; `*` for a hop without an answer. */
function hopsOf(text: string): string[] {
  return [...text.matchAll(/^ *\d+ +(\S+)/gm)].map(([, hop]) => hop!);
}

/** Returns how many datagrams the host has reassembled. */
async function reassembledAt(host: Host): Promise<number> {
  const table = await host.get(['grep', '^Ip:', '/proc/net/snmp']);
  const [names, values] = table.split('\n').map((line) => line.split(' '));
  return Number(values![names!.indexOf('ReasmOKs')]);
}

/** Begins to print the packets at a host's interface. */
async function capture(host: Host, filter: string): Promise<Program> {
  const program = host.start(['tcpdump', '-n', '-l', '-i', 'eth0', filter]);
  await program.printed(/listening on/);
  return program;
}

/** Whether a program can run this on a host, which may need a kernel module. */
async function has(host: Host, command: readonly string[]): Promise<boolean> {
  return (await host.run(command, 5)).code === 0;
}

/** Returns port 7777 and an address in the form in which socat takes the rest of a socket address. */
function socketAddress(address: string): string {
  if (address === '::') return `x1e61x00000000x${'00'.repeat(16)}x00000000`;
  const bytes = address.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
  return `x1e61x${bytes.join('')}x0000000000000000`;
}
