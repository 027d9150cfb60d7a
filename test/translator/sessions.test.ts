import { describe, expect, test } from 'vitest';
import {
  type Ends,
  echoPacket,
  ipPacket,
  sctpPacket,
  tcpPacket,
  udpLitePacket,
  udpPacket,
} from '../support/packets.ts';
import { CLIENT, MIXED_PATHS, mixedPath, mixedPlan, mixedScene, SERVICE } from './mixed.ts';
import { Scene } from './scene.ts';

const MINUTE = 60_000;

const datagram = (ends: Ends, sourcePort: number, destinationPort: number): Uint8Array =>
  udpPacket(ends, { sourcePort, destinationPort });
const lite = (ends: Ends, sourcePort: number, destinationPort: number): Uint8Array =>
  udpLitePacket(ends, { sourcePort, destinationPort });

/** A request and the reply to it, of every kind that needs a session. */
const KINDS = [
  {
    kind: 'UDP',
    timeoutMs: 5 * MINUTE,
    request: (ends: Ends) => datagram(ends, 40_000, 53),
    reply: (ends: Ends) => datagram(ends, 53, 40_000),
  },
  {
    kind: 'UDP-Lite',
    timeoutMs: 5 * MINUTE,
    request: (ends: Ends) => lite(ends, 40_000, 5004),
    reply: (ends: Ends) => lite(ends, 5004, 40_000),
  },
  {
    kind: 'ip/47',
    timeoutMs: 5 * MINUTE,
    request: (ends: Ends) => ipPacket(ends, 47, new Uint8Array(8)),
    // Protocols without ports look the same in both directions.
    reply: (ends: Ends) => ipPacket(ends, 47, new Uint8Array(8)),
  },
  {
    kind: 'echo',
    timeoutMs: MINUTE,
    request: (ends: Ends) => echoPacket(ends, { id: 7 }),
    reply: (ends: Ends) => echoPacket(ends, { id: 7, reply: true }),
  },
];

const CASES = MIXED_PATHS.flatMap((path) => KINDS.map((kind) => ({ ...kind, path })));

describe.each(CASES)('$kind $path.name', ({ path, timeoutMs, request, reply }) => {
  test('a reply passes after a request, and not before', () => {
    const scene = mixedScene();
    const answer = reply(path.reply.before);
    expect(scene.verdicts('cloud', answer)).toEqual(['DropNoSession']);
    expect(scene.verdicts('site', request(path.request.before))).toEqual(['Forward']);
    expect(scene.verdicts('cloud', answer, answer)).toEqual(['Forward', 'Forward']);
    expect(scene.counters('cloud')).toEqual({ DropNoSession: 1, Forward: 2 });
  });

  test('a reply passes until the timeout after the last request', () => {
    const scene = mixedScene();
    const { translator } = scene;
    const at = (now: number): string => {
      translator.advance(now);
      return scene.send('cloud', reply(path.reply.before)).verdict;
    };
    const ask = (now: number): void => {
      translator.advance(now);
      scene.forward('site', request(path.request.before));
    };
    ask(1000);
    // Replies do not refresh it.
    expect([at(1000 + timeoutMs - 1), at(1000 + timeoutMs)]).toEqual(['Forward', 'Forward']);
    expect(at(1000 + timeoutMs + 1)).toBe('DropNoSession');
    ask(2 * timeoutMs);
    ask(3 * timeoutMs);
    expect(at(4 * timeoutMs)).toBe('Forward');
    expect(at(4 * timeoutMs + 1)).toBe('DropNoSession');
  });
});

describe('what belongs to a session', () => {
  const { request, reply } = mixedPath(4, 4);

  test.each<[name: string, packet: Uint8Array, verdict: string]>([
    ['the same ports', datagram(reply.before, 53, 40_000), 'Forward'],
    ['another port of the client', datagram(reply.before, 53, 40_001), 'DropNoSession'],
    ['another port of the service', datagram(reply.before, 54, 40_000), 'DropNoSession'],
    ['both ports exchanged', datagram(reply.before, 40_000, 53), 'DropNotPermitted'],
    ['the same ports of UDP-Lite', lite(reply.before, 53, 40_000), 'DropNoSession'],
  ])('a reply with %s: %3$s', (_name, packet, verdict) => {
    const ports = ['udp/53-54', 'udplite/53'];
    const scene = mixedScene({ ports });
    scene.forward('site', datagram(request.before, 40_000, 53));
    expect(scene.send('cloud', packet).verdict).toBe(verdict);
  });

  test('an echo reply needs the identifier of its request, not its sequence number', () => {
    const scene = mixedScene();
    scene.forward('site', echoPacket(request.before, { id: 0xfedc, sequence: 1 }));
    const answer = (id: number, sequence: number): Uint8Array =>
      echoPacket(reply.before, { id, sequence, reply: true });
    expect(
      scene.verdicts('cloud', answer(0xfedc, 1), answer(0xfedc, 2), answer(0xfedd, 1), answer(0, 1))
    ).toEqual(['Forward', 'Forward', 'DropNoSession', 'DropNoSession']);
  });

  test('a UDP session with the number of an echo identifier is no echo session', () => {
    const scene = mixedScene({ ports: ['icmp', 'udp/1-65535'] });
    scene.forward('site', datagram(request.before, 0, 7));
    const answer = echoPacket(reply.before, { id: 7, reply: true });
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
  });

  test('protocols by number are distinguished', () => {
    const scene = mixedScene({ ports: ['ip/47', 'ip/50'] });
    scene.forward('site', ipPacket(request.before, 47, new Uint8Array(4)));
    expect(scene.send('cloud', ipPacket(reply.before, 50, new Uint8Array(4))).verdict).toBe(
      'DropNoSession'
    );
  });

  test('a session of one IP version does not count for the other, between the same hosts', () => {
    const scene = mixedScene();
    scene.forward('site', datagram(mixedPath(6, 6).request.before, 40_000, 53));
    expect(scene.send('cloud', datagram(reply.before, 53, 40_000)).verdict).toBe('DropNoSession');
  });
});

describe('packets that need no session', () => {
  const { reply } = mixedPath(4, 4);
  test.each([
    ['TCP', tcpPacket(reply.before, { sourcePort: 5672, destinationPort: 40_000 })],
    [
      'SCTP',
      sctpPacket(reply.before, {
        sourcePort: 3868,
        destinationPort: 40_000,
        payload: Uint8Array.of(2, 0, 0, 4),
      }),
    ],
  ])('a reply of %s is recognized by its flags', (_name, packet) => {
    expect(mixedScene().send('cloud', packet).verdict).toBe('Forward');
  });

  test('an INIT from the service opens nothing', () => {
    const packet = sctpPacket(reply.before, {
      sourcePort: 3868,
      destinationPort: 40_000,
      payload: Uint8Array.of(1, 0, 0, 4),
    });
    expect(mixedScene().send('cloud', packet).verdict).toBe('DropNotPermitted');
  });
});

describe('a packet that may be a request or a reply', () => {
  /** Each is a service of the other, on the same port. */
  const plan = (() => {
    const { realms, presences, permits } = mixedPlan({ ports: ['udp/53'] });
    const back = {
      realm: 'cloud',
      service: { realm: 'site', address: CLIENT[4] },
      ports: ['udp/53'],
    };
    return { realms, presences, permits: [...permits, back] };
  })();
  const { request, reply } = mixedPath(4, 4);

  test('passes as a request without a session, and opens one', () => {
    const scene = new Scene({ plan });
    scene.forward('cloud', datagram(reply.before, 53, 53));
    scene.forward('site', datagram(request.before, 53, 53));
  });

  test('opens the session for the other side, from either port', () => {
    const scene = new Scene({ plan });
    expect(scene.verdicts('site', datagram(request.before, 53, 4000))).toEqual(['DropNoSession']);
    // The cloud asks the site's host, whose port is 53.
    scene.forward('cloud', datagram(reply.before, 4000, 53));
    expect(scene.verdicts('site', datagram(request.before, 53, 4000))).toEqual(['Forward']);
    expect(scene.verdicts('cloud', datagram(reply.before, 53, 4000))).toEqual(['DropNoSession']);
  });
});

describe('only forwarded requests open a session', () => {
  const { request, reply } = mixedPath(4, 6);
  const large = udpPacket(request.before, {
    sourcePort: 40_000,
    destinationPort: 53,
    payload: new Uint8Array(1400),
  });

  test('a request that is too big opens none', () => {
    const scene = mixedScene({ cloud: { mtu: 1300 } });
    expect(scene.verdicts('site', large)).toEqual(['DropTooBig']);
    expect(scene.verdicts('cloud', datagram(reply.before, 53, 40_000))).toEqual(['DropNoSession']);
  });

  test('a request without headroom opens none', () => {
    const scene = mixedScene();
    const sent = scene.send('site', large, {}, 19);
    expect(sent.verdict).toBe('NeedsHeadroom');
    expect(scene.verdicts('cloud', datagram(reply.before, 53, 40_000))).toEqual(['DropNoSession']);
  });

  test('an ICMP error and a reply open none', () => {
    const scene = mixedScene();
    scene.forward('site', datagram(request.before, 40_000, 53));
    scene.forward('cloud', datagram(reply.before, 53, 40_000));
    scene.translator.advance(5 * MINUTE);
    scene.forward('cloud', datagram(reply.before, 53, 40_000));
    scene.translator.advance(5 * MINUTE + 1);
    expect(scene.verdicts('cloud', datagram(reply.before, 53, 40_000))).toEqual(['DropNoSession']);
  });
});

test('a reply to a service without a presence has no session', () => {
  const { request, reply } = mixedPath(4, 4);
  const presences = mixedPlan().presences.filter(
    ({ realm, of }) => realm === 'cloud' || of.address !== SERVICE[4]
  );
  const scene = mixedScene({ presences });
  // The service has no presence in the site, so it cannot have got a request.
  expect(scene.verdicts('cloud', datagram(reply.before, 53, 40_000))).toEqual(['DropNoSession']);
  expect(scene.verdicts('site', datagram(request.before, 40_000, 53))).toEqual(['DropNoPresence']);
});

test('a reply without a request is DropNoSession even if the table of paths is full', () => {
  const scene = mixedScene({ maxPaths: 1 });
  const { request } = mixedPath(4, 4);
  scene.forward('site', tcpPacket(request.before, { sourcePort: 1, destinationPort: 5672 }));
  const { reply } = mixedPath(6, 4);
  expect(scene.verdicts('cloud', datagram(reply.before, 53, 40_000))).toEqual(['DropNoSession']);
});

describe('the table of sessions', () => {
  const { request, reply } = mixedPath(4, 4);

  test('keeps the latest sessions when it is full, so that a flood ends no current session', () => {
    const scene = mixedScene({ maxSessions: 4 });
    for (let port = 1; port <= 1000; port++) {
      scene.translator.advance(port);
      scene.forward('site', datagram(request.before, port, 53));
      expect(scene.send('cloud', datagram(reply.before, 53, port)).verdict).toBe('Forward');
    }
    const open = Array.from({ length: 1000 }, (_, i) => i + 1).filter(
      (port) => scene.send('cloud', datagram(reply.before, 53, port)).verdict === 'Forward'
    );
    expect(open).toEqual([993, 994, 995, 996, 997, 998, 999, 1000]);
  });

  test('never replaces the sessions of another realm', () => {
    const { realms, presences, permits } = mixedPlan();
    const other = 'site-b';
    const scene = new Scene({
      maxSessions: 4,
      plan: {
        realms: [...realms, { ...realms[0]!, name: other }],
        presences: [
          ...presences,
          { realm: other, address: '100.64.0.1', of: { realm: 'cloud', address: SERVICE[4] } },
          { realm: 'cloud', address: '100.64.0.99', of: { realm: other, address: CLIENT[4] } },
        ],
        permits: [...permits, { ...permits[0]!, realm: other }],
      },
    });
    for (const port of [1, 2, 3, 4]) scene.forward('site', datagram(request.before, port, 53));
    for (let port = 1; port <= 1000; port++) {
      scene.forward(other, datagram(request.before, port, 53));
      // The replies of the cloud do so too, although it is no client.
      scene.forward('cloud', datagram(reply.before, 53, (port % 4) + 1));
    }
    expect(scene.counters('cloud')).toEqual({ Forward: 1000 });
  });

  test('a session of another kind with a shorter timeout does not replace a valid one', () => {
    const scene = mixedScene();
    const { translator } = scene;
    for (let port = 1; port <= 32; port++) {
      scene.forward('site', datagram(request.before, port, 53));
    }
    // Behind the time of an echo, before that of UDP; the table has room for 65,536.
    translator.advance(2 * MINUTE);
    for (let id = 0; id < 1000; id++) scene.forward('site', echoPacket(request.before, { id }));
    const lost = Array.from({ length: 32 }, (_, i) => i + 1).filter(
      (port) => scene.send('cloud', datagram(reply.before, 53, port)).verdict !== 'Forward'
    );
    expect(lost).toEqual([]);
  });
});

describe('timeouts', () => {
  const { request, reply } = mixedPath(4, 4);

  test('can be changed', () => {
    const scene = mixedScene({ udpTimeoutMs: 10, icmpTimeoutMs: 20 });
    scene.forward('site', datagram(request.before, 40_000, 53));
    scene.forward('site', echoPacket(request.before, {}));
    const answers = [datagram(reply.before, 53, 40_000), echoPacket(reply.before, { reply: true })];
    scene.translator.advance(10);
    expect(scene.verdicts('cloud', ...answers)).toEqual(['Forward', 'Forward']);
    scene.translator.advance(11);
    expect(scene.verdicts('cloud', ...answers)).toEqual(['DropNoSession', 'Forward']);
    scene.translator.advance(21);
    expect(scene.verdicts('cloud', ...answers)).toEqual(['DropNoSession', 'DropNoSession']);
  });

  test.each([2 ** 31 - 1000, 2 ** 32 - 1000, 2 ** 40 - 0.5])('work across %d ms', (start) => {
    const scene = mixedScene();
    scene.translator.advance(start);
    scene.forward('site', datagram(request.before, 40_000, 53));
    const answer = datagram(reply.before, 53, 40_000);
    scene.translator.advance(start + 5 * MINUTE);
    expect(scene.send('cloud', answer).verdict).toBe('Forward');
    scene.translator.advance(start + 5 * MINUTE + 1);
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
  });

  test.each([
    ['maxSessions', 0, 16_777_216],
    ['maxSessions', 2 ** 24 + 1, 16_777_216],
    ['udpTimeoutMs', 0, 86_400_000],
    ['udpTimeoutMs', 86_400_001, 86_400_000],
    ['icmpTimeoutMs', 1.5, 86_400_000],
    ['icmpTimeoutMs', Number.NaN, 86_400_000],
  ])('%s cannot be %d', (option, value, most) => {
    expect(() => mixedScene({ [option]: value })).toThrow(
      `${option} must be a whole number from 1 to ${most}, not ${value}`
    );
  });
});

describe('a new plan', () => {
  const { request, reply } = mixedPath(4, 4);
  const answer = datagram(reply.before, 53, 40_000);

  test.each([
    ['the same plan', mixedPlan()],
    ['with presences and realms in another order', turned(mixedPlan())],
    ['with more ports', mixedPlan({ ports: ['tcp/1', 'udp/53', 'icmp'] })],
    ['with an MTU', mixedPlan({ cloud: { mtu: 1500 } })],
  ])('%s keeps the sessions', (_name, plan) => {
    const scene = mixedScene();
    scene.forward('site', datagram(request.before, 40_000, 53));
    scene.translator.load(plan);
    scene.translator.load(plan);
    expect(scene.send('cloud', answer).verdict).toBe('Forward');
  });

  test('keeps sessions when the reply is the first packet of its path under the new plan', () => {
    const scene = mixedScene();
    for (const port of [1, 2]) scene.forward('site', datagram(request.before, port, 53));
    scene.translator.load(mixedPlan());
    expect(
      scene.verdicts('cloud', ...[1, 2, 3].map((port) => datagram(reply.before, 53, port)))
    ).toEqual(['Forward', 'Forward', 'DropNoSession']);
  });

  test('without the permit ends sessions', () => {
    const scene = mixedScene();
    scene.forward('site', datagram(request.before, 40_000, 53));
    scene.translator.load(mixedPlan({ ports: ['tcp/1'] }));
    expect(scene.send('cloud', answer).verdict).toBe('DropNotPermitted');
    scene.translator.load({ ...mixedPlan(), permits: [] });
    scene.translator.load(mixedPlan());
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
  });

  test('with another service behind an address has no session for that service', () => {
    const second = '10.0.0.10';
    const { realms, presences, permits } = mixedPlan();
    const of = (address: string) => ({ realm: 'cloud', address });
    const others = presences.filter(({ address }) => address !== '100.64.0.1');
    const both = {
      realms,
      permits: [...permits, { ...permits[0]!, service: of(second) }],
      presences: [
        ...others,
        { realm: 'site', address: '100.64.0.1', of: of(SERVICE[4]) },
        { realm: 'site', address: '100.64.0.2', of: of(second) },
      ],
    };
    const swapped = {
      ...both,
      presences: [
        ...others,
        { realm: 'site', address: '100.64.0.2', of: of(SERVICE[4]) },
        { realm: 'site', address: '100.64.0.1', of: of(second) },
      ],
    };
    const scene = new Scene({ plan: both });
    scene.forward('site', datagram(request.before, 40_000, 53));
    scene.translator.load(swapped);
    const fromSecond = { source: second, destination: reply.before.destination };
    expect(scene.verdicts('cloud', datagram(fromSecond, 53, 40_000))).toEqual(['DropNoSession']);
  });
});

function turned(plan: ReturnType<typeof mixedPlan>): ReturnType<typeof mixedPlan> {
  return {
    realms: plan.realms.toReversed(),
    presences: plan.presences.toReversed(),
    permits: plan.permits.toReversed(),
  };
}
