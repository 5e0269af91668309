"""What is to be found: functions with exact answers, traces, symmetries and splits."""

from crevasse.spec import Entry, Table
from crevasse.tasks.base import BLANK, Consecutive, Facts, Input, Recursion, Solution, Task, parse_problem
from crevasse.tasks.splits import TESTS, Problems, Splits, make_splits

TASKS: Table[Task] = Table(
    "task",
    {
        "factorial": Entry("crevasse.tasks.factorial:Factorial", "n! in digits or significant figures"),
        "factorial-mod": Entry("crevasse.tasks.factorial:FactorialMod", "n! mod p, with p in the input"),
        "rising-product": Entry("crevasse.tasks.progressions:RisingProduct", "a(a+d)(a+2d)… mod p, n factors"),
        "iterated-product": Entry("crevasse.tasks.products:IteratedProduct", "x1·x2·…·xT mod p"),
        "fibonacci": Entry("crevasse.tasks.fibonacci:Fibonacci", "F_n, or n steps from seeds u, v mod m"),
        "sum": Entry("crevasse.tasks.progressions:Sum", "a + (a+d) + … mod p, or 1+2+…+n: the reducible control"),
        "parity": Entry("crevasse.tasks.counters:Parity", "x1 ⊕ … ⊕ xT of bits"),
        "cycle": Entry("crevasse.tasks.counters:Cycle", "steps of ±1 on a cycle of five"),
        "affine": Entry("crevasse.tasks.maps:Affine", "x → ax+b mod p, n times, one map or fresh ones"),
        "quadratic": Entry("crevasse.tasks.maps:Quadratic", "x → x²+c mod p, n times"),
        "words": Entry("crevasse.tasks.groups:Words", "products in S3, S4, S5, A5, A4xZ5, Z60, Z120"),
        "power-mod": Entry("crevasse.tasks.residues:PowerMod", "a^n mod p, with p in the input"),
        "catalan": Entry("crevasse.tasks.residues:Catalan", "the Catalan number C(n) mod p, with p in the input"),
        "primorial": Entry("crevasse.tasks.residues:Primorial", "2·3·5·7·… mod p, n primes, with p in the input"),
        "gcd": Entry("crevasse.tasks.euclid:Gcd", "the greatest common divisor of a and b, by Euclid's divisions"),
        "pointer": Entry("crevasse.tasks.pointer:Pointer", "f applied n times to x, with the map f in the input"),
        "collatz": Entry("crevasse.tasks.collatz:Collatz", "x → x/2 or 3x+1, n times, in digits"),
        "josephus": Entry("crevasse.tasks.josephus:Josephus", "who is left of n when every k-th leaves the circle"),
        "ackermann": Entry("crevasse.tasks.ackermann:Ackermann", "A(m, n) mod p for m ≤ 3, or an unseen row m"),
        "brackets": Entry("crevasse.tasks.brackets:Brackets", "((1+2)*3) mod 5: expressions in brackets"),
        "tribonacci": Entry("crevasse.tasks.recurrences:Tribonacci", "the sum of the last three mod m, from seeds"),
        "recurrence": Entry("crevasse.tasks.recurrences:Recurrence", "k-term linear recurrences mod m, from seeds"),
        "modular": Entry("crevasse.tasks.modular:Modular", "a∘b mod p and S5: the tables of the grokking papers"),
        "addition": Entry("crevasse.tasks.arithmetic:Addition", "a + b of decimal numbers"),
        "multiplication": Entry("crevasse.tasks.arithmetic:Multiplication", "a · b of decimal numbers"),
        "copy": Entry("crevasse.tasks.copying:Copy", "x1 … xT once more: structure without recursion"),
        "digits": Entry("crevasse.tasks.digits:Digits", "which digit is it? 1797 handwritten ones, 8×8 pixels"),
        "program": Entry("crevasse.tasks.program:Program", "f(n) or f(a, b) of any program that teach may find"),
        "program-mod": Entry("crevasse.tasks.program:ProgramMod", "steps of a recursive program from any state, mod m"),
        "pairs": Entry("crevasse.tasks.pairs:Pairs", "your own problems and answers: pairs:FILE (CSV or JSONL)"),
    },
)


def parse_task(text: str) -> Task:
    """``"iterated-product:p=13,T=1-6"`` or ``"pairs:my.csv"`` -> the task. Raises UserError."""
    return TASKS.parse(text)


__all__ = [
    "BLANK", "TASKS", "TESTS", "Consecutive", "Facts", "Input", "Problems", "Recursion", "Solution", "Splits",
    "Task", "make_splits", "parse_problem", "parse_task",
]  # fmt: skip
