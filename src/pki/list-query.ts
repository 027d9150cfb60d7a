/**
 * Which tokens or revocations to list: one page, in the order of what names them.
 * @module
 */
import { checkObject, checkText, checkWhole } from '../base/option-check.ts';

/** One page of a list. */
export interface ListQuery {
  /** The name of the last one on the page before. Default: the first page. */
  readonly after?: string | undefined;
  /** How many the page has at most, 1 to 10,000. */
  readonly limit: number;
  /** The site that they belong to. Default: all. */
  readonly site?: string | undefined;
}

/** @throws {ApiMisuseError} if a part is invalid. */
export function checkListQuery(query: ListQuery): ListQuery & { readonly after: string } {
  const { after = '', limit, site } = checkObject('the query', query);
  checkWhole('limit', limit, 1, MAX_LIMIT);
  if (site !== undefined) checkText('site', site);
  if (after !== '') checkText('after', after);
  return { after, limit, site };
}

const MAX_LIMIT = 10_000;
