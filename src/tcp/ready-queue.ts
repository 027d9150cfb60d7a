export const ReadyClass = { Control: 0, New: 1, Bulk: 2 } as const;
export class ReadyQueue<T> {
  readonly #lists: T[][] = [[], [], []];
  get size(): number {
    return this.#lists[0]!.length + this.#lists[1]!.length + this.#lists[2]!.length;
  }
  add(item: T, cls: number): void {
    if (!this.#lists.some((l) => l.includes(item))) this.#lists[cls]!.push(item);
  }
  next(): T | undefined {
    for (const l of this.#lists) if (l.length > 0) return l[0];
    return undefined;
  }
  charge(item: T, _bytes: number): void {
    this.remove(item);
    this.#lists[2]!.push(item);
  }
  remove(item: T): void {
    for (const l of this.#lists) {
      const i = l.indexOf(item);
      if (i >= 0) l.splice(i, 1);
    }
  }
}
