/**
 * Moves packets between two devices, as a cable would.
 * @module
 */
import type { PacketDevice } from '../../src/device/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../src/packet/index.ts';

/** What happens to a packet on its way: it arrives, is lost, or is not taken, which the sender learns. */
export type OnPacket = (frame: Buffer) => 'deliver' | 'lose' | 'refuse';

/** Starts both devices; each reads what the other writes. A device that is full is told so. */
export function pump(
  first: PacketDevice,
  second: PacketDevice,
  onPacket: OnPacket = () => 'deliver'
): void {
  start(first, second, onPacket);
  start(second, first, onPacket);
}

function start(from: PacketDevice, to: PacketDevice, onPacket: OnPacket): void {
  const buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  from.linkChanged?.(true);
  from.start(() => {
    for (let i = 0; i < BATCH; i++) {
      const length = from.read(buffer, 0);
      if (length === 0) return;
      const fate = onPacket(buffer.subarray(0, length));
      if (fate === 'lose') continue;
      const isTaken = fate === 'deliver' && to.write(buffer, 0, length);
      if (!isTaken) from.refused?.();
    }
  });
}

const BATCH = 64;
