import { expect, test, vi } from 'vitest';
import { type UdpEnds, UdpFlowTable } from '../../../src/sockets/udp/udp-flows.ts';
import type { UdpSocket } from '../../../src/sockets/udp/udp-socket.ts';
import { SequenceNumbers } from '../../../src/tcp/isn.ts';
import { Random } from '../../support/random.ts';
import { address, UdpKit } from './udp-kit.ts';

test('sockets are found by their ends, also where many have the same hash', () => {
  const { flowHash } = SequenceNumbers.prototype;
  const spy = vi.spyOn(SequenceNumbers.prototype, 'flowHash');
  spy.mockImplementation(function (this: SequenceNumbers, ...args) {
    return flowHash.apply(this, args) & 3;
  });
  try {
    for (let seed = 1; seed <= 10; seed++) {
      const random = new Random(seed);
      const kit = new UdpKit();
      const table = new UdpFlowTable(kit.word);
      const present = new Map<string, UdpSocket & UdpEnds>();
      for (let i = 0; i < 500; i++) {
        const ends = {
          local: address(random.pick(['10.0.0.1', '10.0.0.2', 'fd00::1'])),
          localPort: random.between(1, 2),
          remote: address('10.0.0.3'),
          remotePort: random.between(1, 4),
        };
        const remote = ends.local.family === 4 ? ends.remote : address('fd00::3');
        const all = { ...ends, remote };
        const key = `${all.local}#${all.localPort} ${all.remotePort}`;
        const known = present.get(key);
        expect(table.find(all)).toBe(known);
        if (known === undefined) {
          const socket = kit.udp.open(all, { onUdpEvents: () => {} }) as UdpSocket & UdpEnds;
          // The endpoint has a table too, in which the socket is chained.
          kit.udp.discard(socket);
          socket.connect(remote, all.remotePort);
          table.add(socket);
          present.set(key, socket);
        } else if (random.below(2) === 0) {
          expect(table.remove(known)).toBe(true);
          expect(table.remove(known)).toBe(false);
          present.delete(key);
        }
        expect(table.size).toBe(present.size);
        expect(new Set(table)).toEqual(new Set(present.values()));
      }
    }
  } finally {
    spy.mockRestore();
  }
});
