/**
 * A TCP endpoint in user space, without I/O.
 * @module
 */
export type { Flow } from './flow.ts';
