import { describe, expect, test } from 'vitest';
import { parseScripts } from './parser.ts';
import type { ScriptEvent } from './script.ts';

function eventsOf(...lines: readonly string[]): readonly ScriptEvent[] {
  return parseScripts('x.pkt', ['== title', ...lines].join('\n'))[0]!.events;
}

describe('parseScripts', () => {
  test('reads titles, comments and what a script is for', () => {
    const scripts = parseScripts(
      'x.pkt',
      '// about\n\n== one\n+0 listen() // here\n== two (stack only)\n== three (IPv4 only)\n'
    );
    expect(
      scripts.map(({ place, title, families, subjects, events }) => [
        place,
        title,
        families,
        subjects,
        events.length,
      ])
    ).toEqual([
      ['x.pkt:3', 'one', [4, 6], ['linux', 'stack'], 1],
      ['x.pkt:5', 'two', [4, 6], ['stack'], 0],
      ['x.pkt:6', 'three', [4], ['linux', 'stack'], 0],
    ]);
  });

  test('reads times, and for whom an event is', () => {
    const events = eventsOf(
      '+0 listen()',
      '+.25~1.5 close()',
      'linux: +1 close()',
      'v6: stack: +0 > nothing'
    );
    expect(
      events.map(({ afterMs, untilMs, subject, family }) => [afterMs, untilMs, subject, family])
    ).toEqual([
      [0, 0, undefined, undefined],
      [250, 1500, undefined, undefined],
      [1000, 1000, 'linux', undefined],
      [0, 0, 'stack', 6],
    ]);
  });

  test('reads every part of a segment', () => {
    const [event] = eventsOf(
      '+0 < PU. -5:5(10) ack 7 win 1000 urg 3 <mss 1460,nop,sackOK,wscale *,TS val $a ecr 9,sack 1:2 3:4,raw 08ff> with wrong checksum'
    );
    expect(event!.action).toEqual({
      type: 'inject',
      isNext: false,
      segment: {
        flags: 'PU.',
        start: -5,
        length: 10,
        ack: 7,
        window: { comparison: '=', value: 1000 },
        urgent: 3,
        options: [
          { kind: 'mss', value: 1460 },
          { kind: 'nop' },
          { kind: 'sackOK' },
          { kind: 'wscale', value: '*' },
          { kind: 'TS', value: '$a', echo: 9 },
          {
            kind: 'sack',
            blocks: [
              [1, 2],
              [3, 4],
            ],
          },
          { kind: 'raw', bytes: Buffer.of(8, 255) },
        ],
        fault: 'checksum',
      },
    });
  });

  test('reads several segments of one line as one event each, the later ones without delay', () => {
    const events = eventsOf('+.1~.2 > . 1:31(3*10) ack 1');
    expect(
      events.map(({ afterMs, action }) => [
        afterMs,
        action.type === 'expect' && action.segment.start,
      ])
    ).toEqual([
      [100, 1],
      [0, 11],
      [0, 21],
    ]);
  });

  test('puts the events of a prelude where it is used', () => {
    const [script] = parseScripts(
      'x.pkt',
      'prelude start\n+0 listen()\n== title\nuse start\n+0 accept()\n'
    );
    expect(script!.events.map(({ text }) => text)).toEqual(['+0 listen()', '+0 accept()']);
  });

  test('reads calls with their results', () => {
    const calls = eventsOf('+0 read(10) = 3', '+0 write(5) = -EPIPE', '+0 close()').map(
      ({ action }) => action
    );
    expect(calls).toEqual([
      { type: 'call', call: { name: 'read', argument: 10, result: 3 } },
      { type: 'call', call: { name: 'write', argument: 5, result: 'EPIPE' } },
      { type: 'call', call: { name: 'close', argument: 0, result: undefined } },
    ]);
  });

  test.each([
    ['listen()', 'an event is'],
    ['+0 dance()', 'no call: dance'],
    ['+0 write()', 'write needs an argument'],
    ['+0 close(1)', 'close takes no argument'],
    ['+0 < . 1:11(9) ack 1', '1:11 is not 9 bytes long'],
    ['+0 < . 1:11(2*4) ack 1', '1:11 is not 2 times 4'],
    ['+0 < S 0:0(0) ack 1', 'go together'],
    ['+0 > . 1:1(0)', 'go together'],
    ['+0 < S 0:0(0) <cookie 1>', 'no option: cookie 1'],
    ['+0 < S 0:0(0) <mss x>', 'no number: x'],
    ['+0 < icmp strange [1]', 'no ICMP error: strange'],
    ['use nothing', 'no prelude: nothing'],
  ])('refuses "%s" and says where it stands', (line, reason) => {
    const read = () => eventsOf('+0 listen()', line);
    expect(read).toThrow(SyntaxError);
    expect(read).toThrow(reason);
    expect(read).toThrow('x.pkt:3');
  });

  test('refuses an event before the first title', () => {
    expect(() => parseScripts('x.pkt', '+0 listen()')).toThrow('before the first title');
  });
});
