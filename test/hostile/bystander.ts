/**
 * The parent's side of `bystander-process.ts`.
 * @module
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Commands } from './bystander-process.ts';

interface Call {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

export class Bystander {
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, Call>();
  #next = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on('message', ({ id, error, result }: { id: number; error?: string; result: never }) => {
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call?.resolve(result);
      else call?.reject(new Error(`the bystander: ${error}`));
    });
    child.on('exit', (code) => {
      for (const { reject } of this.#calls.values()) {
        reject(new Error(`the bystander has ended with ${code}`));
      }
    });
  }

  /** @param devicePath the socket where the cloud gateway receives from the cloud's network */
  static async start(devicePath: string, tunnelPort: number): Promise<Bystander> {
    const child = fork(PROGRAM, [devicePath, String(tunnelPort)], {
      execArgv: ['--import', 'tsx'],
    });
    await new Promise((resolve, reject) => {
      child.once('message', resolve);
      child.once('exit', (code) => reject(new Error(`the bystander has ended with ${code}`)));
    });
    return new Bystander(child);
  }

  /** Sends one command; the answers come in any order. */
  call<K extends keyof Commands>(
    name: K,
    ...args: Parameters<Commands[K]>
  ): Promise<Awaited<ReturnType<Commands[K]>>> {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#calls.set(id, { resolve, reject });
      this.#child.send({ id, name, args });
    });
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }
}

const PROGRAM = fileURLToPath(new URL('./bystander-process.ts', import.meta.url));
