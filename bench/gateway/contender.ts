/**
 * The interface of a contender: a program or setup through which the client of a scene reaches its service.
 * @module
 */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { Program } from '../../test/support/network.ts';
import type { AddressPlan, Scene } from './scene.ts';

export interface Contender {
  readonly name: string;
  /** What it is, in a few words. */
  readonly about: string;
  /** The networks that it can join. */
  readonly plan: AddressPlan;
  /** Whether it carries UDP too. */
  readonly hasUdp: boolean;
  /** Why it cannot run here; undefined if it can. */
  missing(): string | undefined;
  /** Starts it in a fresh scene. What it starts ends with the scene. */
  start(scene: Scene): Promise<ServiceAccess>;
}

/** How the client reaches the service. */
export interface ServiceAccess {
  /** What the client connects to. The ports are the service's own. */
  readonly address: string;
  /** The gateways' programs; none where the kernel does the work. */
  readonly programs: readonly Program[];
}

/** The ports of the service; no others have to pass. */
export const PORTS = { iperf: 5201, echo: 7001, answer: 7002, datagrams: 7003 } as const;

export const TCP_PORTS: readonly number[] = [PORTS.iperf, PORTS.echo, PORTS.answer];

/** @param programs each with its Debian package */
export function missingPrograms(programs: Readonly<Record<string, string>>): string | undefined {
  for (const [program, from] of Object.entries(programs)) {
    if (!isInstalled(program)) return `${program} is not installed (Debian package ${from})`;
  }
  return undefined;
}

function isInstalled(program: string): boolean {
  return PATHS.some((path) => {
    try {
      accessSync(join(path, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Longer than a turn of the benchmark; programs end with their scene before. */
export const LIFETIME_SECONDS = 600;

const PATHS: readonly string[] = [
  ...(process.env.PATH ?? '').split(':'),
  ...['/usr/local/sbin', '/usr/sbin', '/sbin'],
];
