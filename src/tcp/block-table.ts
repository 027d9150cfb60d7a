/**
 * The connections of an endpoint by flow. A keyed hash leads to a chain of blocks, which is nearly always one block
 * long, so a lookup makes no key.
 * @module
 */
import { GroupCounts, quarterOf } from '../base/group-counts.ts';
import type { ControlBlock } from './control-block.ts';
import { type Flow, sameFlow } from './flow.ts';
import type { SegmentReader } from './segment.ts';

export class BlockTable {
  /** How many connections each group of remote addresses has. */
  readonly groups: GroupCounts;
  readonly #chains = new Map<number, ControlBlock>();
  #size = 0;

  /** @param limit how many connections there may be, of which a group may have a quarter */
  constructor(limit: number) {
    this.groups = new GroupCounts(quarterOf(limit));
  }

  get size(): number {
    return this.#size;
  }

  /** The caller has made sure that the flow is not in the table. */
  add(block: ControlBlock): void {
    const { hash } = block.flow;
    block.chained = this.#chains.get(hash);
    this.#chains.set(hash, block);
    this.groups.add(block.group);
    this.#size++;
  }

  remove(block: ControlBlock): void {
    const { hash } = block.flow;
    const first = this.#chains.get(hash);
    if (first === block) {
      if (block.chained === undefined) this.#chains.delete(hash);
      else this.#chains.set(hash, block.chained);
    } else {
      let before = first;
      while (before !== undefined && before.chained !== block) before = before.chained;
      if (before === undefined) return;
      before.chained = block.chained;
    }
    block.chained = undefined;
    this.groups.remove(block.group);
    this.#size--;
  }

  /** Returns the connection that the segment, whose flow has this hash, belongs to. */
  findSegment(segment: SegmentReader, hash: number): ControlBlock | undefined {
    let block = this.#chains.get(hash);
    while (block !== undefined && !segment.isOf(block.flow)) block = block.chained;
    return block;
  }

  find(flow: Flow): ControlBlock | undefined {
    let block = this.#chains.get(flow.hash);
    while (block !== undefined && !sameFlow(block.flow, flow)) block = block.chained;
    return block;
  }

  /** All connections; the table may be changed meanwhile. */
  *[Symbol.iterator](): IterableIterator<ControlBlock> {
    for (const first of [...this.#chains.values()]) {
      let block: ControlBlock | undefined = first;
      while (block !== undefined) {
        const { chained }: ControlBlock = block;
        yield block;
        block = chained;
      }
    }
  }
}
