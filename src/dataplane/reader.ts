/**
 * Reads a device until it is stopped. A device is started once and keeps its callback, so the callback does nothing
 * after the stop.
 * @module
 */
import type { PacketDevice } from '../device/index.ts';

/**
 * Starts the device. Returns a function that pauses it and releases `onReadable`.
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

/** Replaces a callback of a device or a tunnel that is no longer used. */
export function ignore(): void {}
