/**
 * Opens what an edge gateway has on its machine: the device, the routes to the pools, and the DNS server.
 * @module
 */
import type { CloseStack } from '../base/close-stack.ts';
import { isPacketDevice, openDevice, type PacketDevice } from '../device/index.ts';
import { DnsServer } from '../dns/index.ts';
import type { ResolvedEdgeOptions } from './edge-options.ts';
import { EdgeRoutes } from './edge-routes.ts';
import { EdgeSockets } from './edge-sockets.ts';
import { openSockets } from './gateway-sockets.ts';
import type { HostCheck } from './host-check.ts';
import { SnapshotInForce } from './snapshot-in-force.ts';

export interface EdgeParts {
  readonly device: PacketDevice;
  readonly sockets: EdgeSockets;
  /** Undefined without the option `dns`. */
  readonly names: DnsServer | undefined;
  readonly inForce: SnapshotInForce;
}

/**
 * Opens the parts, and adds each to `closing`.
 *
 * @throws {EnvironmentError} if a device, a port or a route cannot be opened.
 * @throws the reason of `options.signal`, if that is aborted.
 */
export async function openEdgeParts(
  options: ResolvedEdgeOptions,
  closing: CloseStack,
  hostCheck: HostCheck,
  onProblem: (error: Error) => void
): Promise<EdgeParts> {
  const { device: option, dns, logger, clock, signal } = options;
  const device = await openDeviceOf(options);
  if (!isPacketDevice(option)) closing.add(() => device.close());
  signal?.throwIfAborted();
  const sockets = new EdgeSockets(device, option);
  // Routes are set on the device, so this must end before the device is closed.
  const routes = new EdgeRoutes({ device, option, hostCheck, logger, onProblem });
  closing.add(() => routes.close());
  const names = dns && (await DnsServer.listen({ ...dns, clock }));
  if (names !== undefined) {
    closing.add(() => names.close());
    sockets.setOwnListeners([names.address]);
  }
  signal?.throwIfAborted();
  return { device, sockets, names, inForce: new SnapshotInForce(sockets, routes, names) };
}

async function openDeviceOf({ device, logger, clock }: ResolvedEdgeOptions): Promise<PacketDevice> {
  if (isPacketDevice(device)) return device;
  if (device.type === 'sockets') return openSockets(device, clock);
  return openDevice(device, (problem) =>
    logger.warn({ event: 'edge_device_problem' }, `device: ${problem}`)
  );
}
