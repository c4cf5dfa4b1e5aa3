// What every client here says: a question that a tool helps with, a correction, and three more turns.
export const BASE = process.env.OPENCLAW_BASE_URL
export const ROOT = BASE.replace(/\/v1$/, '')
export const KEY = 'none'
export const MODEL = 'policy'
export const SYSTEM = 'You are a careful assistant.'
// Each client asks for something of its own: two conversations of the same words could not be told apart.
const [A, B] = (process.env.OPENCLAW_NUMBERS ?? '12 7').split(' ')
export const ASKED = [
  `What is ${A} + ${B}?`,
  'No, answer with the number alone, please.',
  `And ${B} + 4?`,
  `Thanks. What is ${A} + 6?`,
  'That is right, thank you.',
]
export const MOST_CALLS = 2
// Within limits: a small model that must call does not end a number by itself.
const NUMBER = { type: 'integer', minimum: 0, maximum: 999 }
export const SCHEMA = {
  type: 'object',
  properties: { a: NUMBER, b: NUMBER },
  required: ['a', 'b'],
}
export const result = ({ a, b }) => (Number.isInteger(a) && Number.isInteger(b) ? `${a + b}` : 'Error: no numbers')
