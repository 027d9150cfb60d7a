/**
 * virtual-presence: services of a cloud and of its edge sites talk as if each were local, while the
 * networks stay apart. Each room is also an entry point of its own, `virtual-presence/translator`
 * and so on, for a host that needs only that.
 *
 * @module virtual-presence
 */
export { type Family, IpAddress, IpPrefix } from './address.ts';
export * from './admin/index.ts';
export * from './allocator/index.ts';
export * from './audit/index.ts';
export * from './control/index.ts';
export * from './dataplane/index.ts';
export * from './device/index.ts';
export * from './dns/index.ts';
export * from './errors.ts';
export { CloudGateway, EdgeGateway } from './gateway/index.ts';
export * from './packet/index.ts';
export * from './pki/index.ts';
export { type PortRange, parsePortRange } from './port-range.ts';
export * from './registry/index.ts';
export * from './schema.ts';
export * from './store/index.ts';
export * from './translator/index.ts';
export * from './trust/index.ts';
export * from './tunnel/index.ts';
export { VERSION } from './version.ts';
