/**
 * Doubly linked lists of numbers: the paths of each route, the presences in each realm. Lists and members are
 * numbered from 0, and a member is in one list at most. A list takes 8 bytes, and so does a member. Adding, removing
 * and going on to the next member take the same time in a long list as in a short one.
 * @module
 */

export class IntLists {
  /** For each list: its first member plus 1, or 0 if it is empty; then the number of its members. */
  #lists: Int32Array = new Int32Array(2 * INITIAL_COUNT);
  /** For each member: the next one plus 1, then the previous one plus 1; 0 if there is none. */
  #members: Int32Array = new Int32Array(2 * INITIAL_COUNT);

  /** Adds a member at the front. */
  add(list: number, member: number): void {
    if (2 * list >= this.#lists.length) this.#lists = enlarged(this.#lists, 2 * list);
    if (2 * member >= this.#members.length) this.#members = enlarged(this.#members, 2 * member);
    const next = this.#lists[2 * list]!;
    this.#members[2 * member] = next;
    this.#members[2 * member + 1] = 0;
    if (next > 0) this.#members[2 * next - 1] = member + 1;
    this.#lists[2 * list] = member + 1;
    this.#lists[2 * list + 1]!++;
  }

  remove(list: number, member: number): void {
    const next = this.#members[2 * member]!;
    const previous = this.#members[2 * member + 1]!;
    if (next > 0) this.#members[2 * next - 1] = previous;
    if (previous > 0) this.#members[2 * previous - 2] = next;
    else this.#lists[2 * list] = next;
    this.#lists[2 * list + 1]!--;
  }

  /** Gives a member another number, which is no member of any list and is not above all numbers so far. */
  renumber(list: number, from: number, to: number): void {
    const next = this.#members[2 * from]!;
    const previous = this.#members[2 * from + 1]!;
    this.#members[2 * to] = next;
    this.#members[2 * to + 1] = previous;
    if (next > 0) this.#members[2 * next - 1] = to + 1;
    if (previous > 0) this.#members[2 * previous - 2] = to + 1;
    else this.#lists[2 * list] = to + 1;
  }

  /** Returns the first member of a list, or -1. */
  first(list: number): number {
    return (this.#lists[2 * list] ?? 0) - 1;
  }

  /** Returns the member behind another one, or -1. */
  next(member: number): number {
    return this.#members[2 * member]! - 1;
  }

  /** Returns the number of members of a list. */
  length(list: number): number {
    return this.#lists[2 * list + 1] ?? 0;
  }

  /** Returns the members of a list. The caller may change the list while it works on them. */
  membersOf(list: number): number[] {
    const members: number[] = [];
    for (let each = this.first(list); each >= 0; each = this.next(each)) members.push(each);
    return members;
  }

  /** The memory of the lists in bytes. */
  get byteLength(): number {
    return this.#lists.byteLength + this.#members.byteLength;
  }
}

/** Returns a copy of the array that has a place for an index. */
function enlarged(before: Int32Array, index: number): Int32Array {
  let { length } = before;
  while (length <= index) length *= 2;
  const larger = new Int32Array(length);
  larger.set(before);
  return larger;
}

const INITIAL_COUNT = 16;
