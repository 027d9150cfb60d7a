import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DnsListener, SiteResolver, Zone } from '../../src/dns/index.ts';
import { ZONE, ZONE_DATA } from './scene.ts';

const hasDig = spawnSync('dig', ['-v']).status === 0;

describe.skipIf(!hasDig)('dig (skipped where the Debian package bind9-dnsutils is missing)', () => {
  const open: DnsListener[] = [];
  let resolver: SiteResolver;

  beforeAll(async () => {
    const elsewhere = Zone.compile({
      ...ZONE_DATA,
      origin: 'example.org',
      pointers: [],
      reverse: [],
    });
    const upstream = await DnsListener.listen({
      resolver: new SiteResolver({ zone: elsewhere }),
      listen: '127.0.0.1:0',
    });
    const forward = [{ suffix: 'example.org', upstreams: [`127.0.0.1:${upstream.address.port}`] }];
    resolver = new SiteResolver({ zone: ZONE, forward });
    open.push(upstream, await DnsListener.listen({ resolver, listen: '127.0.0.1:0' }));
  });

  afterAll(async () => {
    await Promise.all(open.map((listener) => listener.close()));
  });

  async function dig(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('dig', [
      '@127.0.0.1',
      '-p',
      `${open[1]!.address.port}`,
      '+tries=1',
      ...args,
    ]);
    expect(stdout).not.toMatch(
      /malformed|extra bytes|WARNING: (?!recursion|EDNS query)|parse error/i
    );
    return stdout;
  }

  for (const transport of ['+notcp', '+tcp']) {
    test.each([
      [
        'A',
        ['keystone.openstack.test'],
        /status: NOERROR.*flags: qr aa rd ra;.*60\s+IN\s+A\s100\.64\.0\.2\n/s,
      ],
      [
        'A without EDNS',
        ['+noedns', 'keystone.openstack.test'],
        /ADDITIONAL: 0\n.*\sA\s100\.64\.0\.2\n/s,
      ],
      [
        'AAAA of an IPv4-only name',
        ['keystone.openstack.test', 'AAAA'],
        /NOERROR.*ANSWER: 0, AUTHORITY: 1.*\nopenstack\.test\.\s+10\s+IN\s+SOA\s/s,
      ],
      ['AAAA', ['rabbit.mq.openstack.test', 'AAAA'], /\sAAAA\s2001:db8:64::3\n/],
      ['PTR of IPv4', ['-x', '100.64.0.2'], /\sPTR\skeystone\.openstack\.test\.\n/],
      ['PTR of IPv6', ['-x', '2001:db8:64::3'], /\sPTR\srabbit\.mq\.openstack\.test\.\n/],
      [
        'PTR of a free address',
        ['-x', '100.64.0.200'],
        /NXDOMAIN.*\n0\.64\.100\.in-addr\.arpa\.\s+10\s+IN\s+SOA/s,
      ],
      [
        'SRV',
        ['_amqp._tcp.rabbit.mq.openstack.test', 'SRV'],
        /\sSRV\s0 0 5672 rabbit\.mq\.openstack\.test\.\n.*\sA\s100\.64\.0\.3\n/s,
      ],
      ['TXT', ['rabbit.mq.openstack.test', 'TXT'], /\sTXT\s"vhost=\/nova"\n/],
      [
        'SOA',
        ['openstack.test', 'SOA'],
        /60\s+IN\s+SOA\s+ns\.openstack\.test\. hostmaster\.openstack\.test\. 7 3600 600 1209600 10\n/,
      ],
      ['NS', ['openstack.test', 'NS'], /\sNS\sns\.openstack\.test\.\n.*\sA\s100\.64\.0\.1\n/s],
      ['ANY', ['rabbit.mq.openstack.test', 'ANY'], /\sHINFO\s"RFC8482" ""\n/],
      ['HTTPS', ['keystone.openstack.test', 'TYPE65'], /NOERROR.*ANSWER: 0, AUTHORITY: 1/s],
      [
        'NXDOMAIN',
        ['nova.openstack.test'],
        /NXDOMAIN.*flags: qr aa.*\nopenstack\.test\.\s+10\s+IN\s+SOA/s,
      ],
      ['an empty non-terminal', ['mq.openstack.test'], /NOERROR.*ANSWER: 0, AUTHORITY: 1/s],
      [
        'an alias',
        ['identity.openstack.test'],
        /NOERROR.*ANSWER: 2,.*\nidentity\.openstack\.test\.\s+60\s+IN\s+CNAME\skeystone\.openstack\.test\.\nkeystone\.openstack\.test\.\s+60\s+IN\s+A\s100\.64\.0\.2\n/s,
      ],
      [
        'AAAA behind an alias',
        ['identity.openstack.test', 'AAAA'],
        /NOERROR.*ANSWER: 1, AUTHORITY: 1.*\sCNAME\skeystone.*\nopenstack\.test\.\s+10\s+IN\s+SOA/s,
      ],
      ['ANY of an alias', ['identity.openstack.test', 'ANY'], /ANSWER: 1,.*\sCNAME\skeystone/s],
      [
        'a name that a wildcard covers',
        ['shop.APPS.openstack.test'],
        /NOERROR.*ANSWER: 1,.*\nshop\.APPS\.openstack\.test\.\s+60\s+IN\s+A\s100\.64\.0\.5\n/s,
      ],
      [
        'a type that the wildcard lacks',
        ['shop.apps.openstack.test', 'TXT'],
        /NOERROR.*ANSWER: 0, AUTHORITY: 1/s,
      ],
      [
        'a name below one that exists beside the wildcard',
        ['x.web.apps.openstack.test'],
        /NXDOMAIN.*ANSWER: 0, AUTHORITY: 1/s,
      ],
      [
        'a name that a wildcard alias covers',
        ['a.b.sites.openstack.test'],
        /ANSWER: 2,.*\na\.b\.sites\.openstack\.test\.\s+60\s+IN\s+CNAME\sapps.*\sA\s100\.64\.0\.5\n/s,
      ],
      [
        'a label that needs escapes',
        ['a\\000\\.b.apps.openstack.test'],
        /\na\\000\\\.b\.apps\.openstack\.test\.\s+60\s+IN\s+A\s100\.64\.0\.5\n/,
      ],
      [
        'HTTPS records',
        ['apps.openstack.test', 'HTTPS'],
        /\sHTTPS\s1 \. alpn="h2,h3"\n.*ADDITIONAL SECTION:\napps\..*\sA\s100\.64\.0\.5\n.*\sAAAA\s2001:db8:64::5\n/s,
      ],
      [
        'HTTPS of a port',
        ['_8443._https.apps.openstack.test', 'HTTPS'],
        /\sHTTPS\s1 \. port=8443\n/,
      ],
      [
        'HTTPS of a name that a wildcard covers',
        ['shop.apps.openstack.test', 'HTTPS'],
        /\nshop\..*\sHTTPS\s1 \. alpn="h2,h3"\n.*\nshop\..*\sAAAA\s2001:db8:64::5\n/s,
      ],
      [
        'HTTPS in AliasMode',
        ['portal.openstack.test', 'HTTPS'],
        /\sHTTPS\s0 apps\.openstack\.test\.\n.*\napps\..*\sA\s100\.64\.0\.5\n.*\napps\..*\sHTTPS\s1 \. alpn="h2,h3"\n/s,
      ],
      [
        'SVCB',
        ['_dns.apps.openstack.test', 'SVCB'],
        /\sSVCB\s1 v6only\.openstack\.test\. alpn="dot" port=853\n.*\nv6only\..*\sAAAA\s2001:db8:64::4\n/s,
      ],
      ['a foreign name', ['www.example.com'], /status: REFUSED.*ANSWER: 0/s],
      ['a forwarded name', ['keystone.example.org'], /NOERROR.*\sA\s100\.64\.0\.2\n/s],
      ['class CH', ['-c', 'CH', 'version.bind', 'TXT'], /status: REFUSED/],
      ['EDNS version 1', ['+edns=1', '+noednsneg', 'keystone.openstack.test'], /status: BADVERS/],
      ['opcode NOTIFY', ['+opcode=NOTIFY', 'openstack.test', 'SOA'], /status: NOTIMP/],
      [
        'a DNS cookie and DO',
        ['+cookie', '+dnssec', 'keystone.openstack.test'],
        /flags: do; udp: 1232/,
      ],
    ])(`${transport} gets %s`, async (_, args, expected) => {
      expect(await dig(transport, ...args)).toMatch(expected);
    });
  }

  test.each([
    ['512 bytes', ['+bufsize=512', 'large.openstack.test']],
    ['no EDNS', ['+noedns', 'large.openstack.test']],
    ['512 bytes, forwarded', ['+bufsize=512', 'large.example.org']],
    ['512 bytes, through an alias', ['+bufsize=512', 'huge.openstack.test'], 61],
  ])('gets a truncated answer at %s, and the whole answer by TCP', async (_, args, count = 60) => {
    expect(await dig('+ignore', ...args)).toMatch(/flags: qr (aa )?tc rd ra;.*ANSWER: 0/);
    const whole = await dig(...args);
    expect(whole).toContain('Truncated, retrying in TCP mode');
    expect(whole).toContain(`ANSWER: ${count}`);
  });

  test('gets 60 addresses in one datagram of 1232 bytes', async () => {
    const whole = await dig('+ignore', '+bufsize=1232', 'large.openstack.test');
    expect(whole).toContain('ANSWER: 60');
    expect(whole).toContain('MSG SIZE  rcvd: 1009');
  });

  test('gets no zone transfer', async () => {
    expect(await dig('openstack.test', 'AXFR')).toContain('Transfer failed');
  });
});
