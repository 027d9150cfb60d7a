import { describe, expect, test } from 'vitest';
import { CommitOrder } from '../../src/etcd/commit-order.ts';

/** Commits that end when the test says so, and which of them have begun. */
class Commits {
  readonly begun: string[] = [];
  readonly #order: CommitOrder;
  readonly #ends = new Map<string, (error?: Error) => void>();

  constructor(limit = 10) {
    this.#order = new CommitOrder(limit);
  }

  give(name: string, writes: readonly string[], reads: readonly string[] = []): Promise<void> {
    return this.#order.run(writes, reads, () => {
      this.begun.push(name);
      return new Promise((resolve, reject) => {
        this.#ends.set(name, (error) => (error === undefined ? resolve() : reject(error)));
      });
    });
  }

  /** Ends a commit, and returns when what waited for it has begun. */
  async end(name: string, error?: Error): Promise<void> {
    this.#ends.get(name)!(error);
    await settle();
  }
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('CommitOrder', () => {
  test('begins at once what has no key in common', async () => {
    const commits = new Commits();
    void commits.give('a', ['x']);
    void commits.give('b', ['y'], ['epoch']);
    void commits.give('c', ['z'], ['epoch']);
    await settle();
    expect(commits.begun).toEqual(['a', 'b', 'c']);
  });

  test('keeps the order of those that write the same key, also when one fails', async () => {
    const commits = new Commits();
    const first = commits.give('a', ['x', 'y']);
    void commits.give('b', ['y', 'z']);
    void commits.give('c', ['z']);
    await settle();
    expect(commits.begun).toEqual(['a']);
    await Promise.all([expect(first).rejects.toThrow('gone'), commits.end('a', new Error('gone'))]);
    expect(commits.begun).toEqual(['a', 'b']);
    await commits.end('b');
    expect(commits.begun).toEqual(['a', 'b', 'c']);
  });

  test('lets a writer wait for those that compare its key, and them for the writer', async () => {
    const commits = new Commits();
    void commits.give('a', ['x'], ['epoch']);
    void commits.give('b', ['y'], ['epoch']);
    void commits.give('writer', ['epoch']);
    void commits.give('c', ['z'], ['epoch']);
    await settle();
    expect(commits.begun).toEqual(['a', 'b']);
    await commits.end('a');
    expect(commits.begun).toEqual(['a', 'b']);
    await commits.end('b');
    expect(commits.begun).toEqual(['a', 'b', 'writer']);
    await commits.end('writer');
    expect(commits.begun).toEqual(['a', 'b', 'writer', 'c']);
  });

  test('has no more under way than its limit', async () => {
    const commits = new Commits(2);
    for (const name of ['a', 'b', 'c', 'd']) void commits.give(name, [name]);
    await settle();
    expect(commits.begun).toEqual(['a', 'b']);
    await commits.end('b');
    expect(commits.begun).toEqual(['a', 'b', 'c']);
    await commits.end('c');
    expect(commits.begun).toEqual(['a', 'b', 'c', 'd']);
  });
});
