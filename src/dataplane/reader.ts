/**
 * Takes a device's packets, until told not to any more. A device is started once and keeps what it was given, so it
 * is given what leads to nothing afterwards.
 * @module
 */
import type { PacketDevice } from '../device/index.ts';

/**
 * Begins to read. Returns the function that ends it: the device is paused then, and does not keep `onReadable`.
 *
 * @throws {ApiMisuseError} if the device was started before, or is closed.
 */
export function startReading(device: PacketDevice, onReadable: () => void): () => void {
  let reader = onReadable;
  device.start(() => reader());
  return () => {
    reader = ignore;
    device.pause();
  };
}

/** What is given to a device or a tunnel in place of the listener that it had. */
export function ignore(): void {}
