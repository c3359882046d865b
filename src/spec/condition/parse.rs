//! Tokens become a tree: the grammar of CEL, without what a condition has no use for (bytes, messages, maps written
//! out).
//!
//! Invariant: a tree is bounded in size and depth, so walking it can neither overflow the stack nor take long.

use super::{
    ConditionError,
    lex::{Span, Token, tokens},
};

/// Longest expression, in characters: far beyond what anyone can read.
const MAX_LENGTH: usize = 4_096;
/// Deepest tree, operators chained from left to right included.
const MAX_DEPTH: u16 = 100;
/// Deepest nesting of brackets and signs.
const MAX_NESTING: u16 = 40;

/// A node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
    depth: u16,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A constant.
    Literal(Literal),
    /// A name on its own.
    Name(String),
    /// `of.field`
    Field { of: Box<Expr>, name: String, name_span: Span },
    /// `of[index]`
    Index { of: Box<Expr>, index: Box<Expr> },
    /// `[a, b]`
    List(Vec<Expr>),
    /// `!x`
    Not(Box<Expr>),
    /// `-x`
    Negate(Box<Expr>),
    /// `a op b`
    Binary { op: Op, left: Box<Expr>, right: Box<Expr> },
    /// `a ? b : c`
    Choice { test: Box<Expr>, then: Box<Expr>, other: Box<Expr> },
    /// `name(args)` or `target.name(args)`
    Call { target: Option<Box<Expr>>, name: String, name_span: Span, args: Vec<Expr> },
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Op {
    /// As written.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// Operators by how strongly they bind, weakest first; all of them group from the left.
const LEVELS: [&[Op]; 5] = [
    &[Op::Or],
    &[Op::And],
    &[Op::Equal, Op::Unequal, Op::LessOrEqual, Op::GreaterOrEqual, Op::Less, Op::Greater, Op::In],
    &[Op::Add, Op::Subtract],
    &[Op::Multiply, Op::Divide, Op::Remainder],
];

/// Reads an expression.
pub(super) fn parse(source: &str) -> Result<Expr, ConditionError> {
    let length = source.chars().count();
    if length > MAX_LENGTH {
        let span = Span { start: MAX_LENGTH, end: length };
        return Err(span.error(format!("an expression has at most {MAX_LENGTH} characters")));
    }
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nesting: 0 };
    if *parser.peek() == Token::End {
        return Err(Span { start: 0, end: 1 }
            .error("the expression is empty")
            .help("write a condition such as `job.metadata.region == \"eu\"`"));
    }
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        Token::Symbol("=") => {
            Err(parser.span().error("`=` has no meaning in a condition").help("write `==` to compare"))
        }
        Token::Name(name) if name == "and" => Err(parser.span().error("unexpected `and`").help("write `&&`")),
        Token::Name(name) if name == "or" => Err(parser.span().error("unexpected `or`").help("write `||`")),
        _ => Err(parser.unexpected("the end of the expression or an operator")),
    }
}

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    nesting: u16,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn span(&self) -> Span {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(Span { start: 0, end: 1 }, |(_, span)| *span)
    }

    fn next(&mut self) -> (Token, Span) {
        let taken = (self.peek().clone(), self.span());
        self.at += 1;
        taken
    }

    fn eat(&mut self, symbol: &'static str) -> bool {
        let found = *self.peek() == Token::Symbol(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<Span, ConditionError> {
        let span = self.span();
        if self.eat(symbol) { Ok(span) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> ConditionError {
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Name(name) => format!("`{name}`"),
            Token::Text(_) => "a text".to_owned(),
            Token::Int(_) | Token::UInt(_) | Token::Double(_) => "a number".to_owned(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        };
        self.span().error(format!("expected {wanted}, found {found}"))
    }

    fn expression(&mut self) -> Result<Expr, ConditionError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(too_deep(self.span()));
        }
        let test = self.operation(0)?;
        let expr = if self.eat("?") {
            let then = self.operation(0)?;
            self.expect(":")?;
            let other = self.expression()?;
            let depth = test.depth.max(then.depth).max(other.depth);
            let span = test.span.to(other.span);
            let kind = Kind::Choice { test: Box::new(test), then: Box::new(then), other: Box::new(other) };
            node(kind, span, depth)?
        } else {
            test
        };
        self.nesting -= 1;
        Ok(expr)
    }

    /// Operands joined by operators that bind at least as strongly as `LEVELS[weakest]`.
    fn operation(&mut self, weakest: usize) -> Result<Expr, ConditionError> {
        let mut left = self.unary()?;
        while let Some((op, level)) = self.operator(weakest) {
            let right = self.operation(level + 1)?;
            let (depth, span) = (left.depth.max(right.depth), left.span.to(right.span));
            left = node(Kind::Binary { op, left: Box::new(left), right: Box::new(right) }, span, depth)?;
        }
        Ok(left)
    }

    fn operator(&mut self, weakest: usize) -> Option<(Op, usize)> {
        let symbol = match self.peek() {
            Token::Symbol(symbol) => *symbol,
            Token::Name(name) if name == "in" => "in",
            _ => return None,
        };
        let found = LEVELS
            .iter()
            .enumerate()
            .skip(weakest)
            .find_map(|(level, ops)| ops.iter().copied().find(|op| op.symbol() == symbol).map(|op| (op, level)))?;
        self.at += 1;
        Some(found)
    }

    fn unary(&mut self) -> Result<Expr, ConditionError> {
        let start = self.span();
        if !matches!(self.peek(), Token::Symbol("!" | "-")) {
            return self.member();
        }
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(too_deep(start));
        }
        let negate = self.eat("-");
        let expr = if negate {
            self.negative(start)?
        } else {
            self.at += 1;
            let of = self.unary()?;
            let (depth, span) = (of.depth, start.to(of.span));
            node(Kind::Not(Box::new(of)), span, depth)?
        };
        self.nesting -= 1;
        Ok(expr)
    }

    /// What follows a minus: a sign belongs to a number, so that the smallest one can be written.
    fn negative(&mut self, start: Span) -> Result<Expr, ConditionError> {
        let literal = match *self.peek() {
            Token::Int(value) => 0_i64.checked_sub_unsigned(value).map(Literal::Int),
            Token::Double(value) => Some(Literal::Double(-value)),
            _ => {
                let of = self.unary()?;
                let (depth, span) = (of.depth, start.to(of.span));
                return node(Kind::Negate(Box::new(of)), span, depth);
            }
        };
        let (_, span) = self.next();
        let span = start.to(span);
        let literal = literal.ok_or_else(|| span.error("this number is out of range"))?;
        let expr = node(Kind::Literal(literal), span, 0)?;
        self.members(expr)
    }

    fn member(&mut self) -> Result<Expr, ConditionError> {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Result<Expr, ConditionError> {
        loop {
            if self.eat(".") {
                if *self.peek() == Token::Symbol("?") {
                    return Err(self.span().error("optional fields (`.?`) are not available").help("use `has(…)`"));
                }
                let (Token::Name(name), name_span) = (self.peek().clone(), self.span()) else {
                    return Err(self
                        .unexpected("a field's name")
                        .help("write `[\"…\"]` for names of other characters"));
                };
                if matches!(name.as_str(), "true" | "false" | "null" | "in") {
                    return Err(name_span
                        .error(format!("`{name}` is a word of the language"))
                        .help(format!("write `[\"{name}\"]`")));
                }
                self.at += 1;
                expr = if self.eat("(") {
                    let (args, end) = self.arguments()?;
                    call(Some(expr), name, name_span, args, end)?
                } else {
                    let (depth, span) = (expr.depth, expr.span.to(name_span));
                    node(Kind::Field { of: Box::new(expr), name, name_span }, span, depth)?
                };
            } else if self.eat("[") {
                let index = self.expression()?;
                let end = self.expect("]")?;
                let (depth, span) = (expr.depth.max(index.depth), expr.span.to(end));
                expr = node(Kind::Index { of: Box::new(expr), index: Box::new(index) }, span, depth)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn arguments(&mut self) -> Result<(Vec<Expr>, Span), ConditionError> {
        let mut args = Vec::new();
        loop {
            let end = self.span();
            if args.is_empty() && self.eat(")") {
                return Ok((args, end));
            }
            args.push(self.expression()?);
            let end = self.span();
            if self.eat(")") {
                return Ok((args, end));
            }
            if !self.eat(",") {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, ConditionError> {
        let span = self.span();
        let literal = match self.peek() {
            Token::Text(text) => Literal::Text(text.as_str().into()),
            Token::Int(value) => Literal::Int(i64::try_from(*value).map_err(|_| {
                span.error("this number is out of range").help("write a `u` behind it for an unsigned number")
            })?),
            Token::UInt(value) => Literal::UInt(*value),
            Token::Double(value) => Literal::Double(*value),
            Token::Name(name) if name == "true" => Literal::Bool(true),
            Token::Name(name) if name == "false" => Literal::Bool(false),
            Token::Name(name) if name == "null" => Literal::Null,
            Token::Name(name) if name == "in" => return Err(self.unexpected("a value")),
            Token::Name(name) => {
                let name = name.clone();
                self.at += 1;
                if self.eat("(") {
                    let (args, end) = self.arguments()?;
                    return call(None, name, span, args, end);
                }
                return node(Kind::Name(name), span, 0);
            }
            Token::Symbol("(") => {
                self.at += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => {
                self.at += 1;
                return self.list(span);
            }
            Token::Symbol("{") => {
                return Err(span
                    .error("maps cannot be written out in a condition")
                    .help("use `==`, `in [..]` and `||`"));
            }
            Token::Symbol(_) | Token::End => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        node(Kind::Literal(literal), span, 0)
    }

    fn list(&mut self, start: Span) -> Result<Expr, ConditionError> {
        let mut items = Vec::new();
        loop {
            let end = self.span();
            if self.eat("]") {
                let depth = items.iter().map(|item: &Expr| item.depth).max().unwrap_or(0);
                return node(Kind::List(items), start.to(end), depth);
            }
            if !items.is_empty() && !self.eat(",") {
                return Err(self.unexpected("`,` or `]`"));
            }
            if !items.is_empty() && *self.peek() == Token::Symbol("]") {
                continue;
            }
            items.push(self.expression()?);
        }
    }
}

fn call(
    target: Option<Expr>,
    name: String,
    name_span: Span,
    args: Vec<Expr>,
    end: Span,
) -> Result<Expr, ConditionError> {
    let depth = args.iter().chain(&target).map(|expr| expr.depth).max().unwrap_or(0);
    let span = target.as_ref().map_or(name_span, |target| target.span).to(end);
    node(Kind::Call { target: target.map(Box::new), name, name_span, args }, span, depth)
}

fn node(kind: Kind, span: Span, below: u16) -> Result<Expr, ConditionError> {
    let depth = below.saturating_add(1);
    if depth > MAX_DEPTH { Err(too_deep(span)) } else { Ok(Expr { span, kind, depth }) }
}

fn too_deep(span: Span) -> ConditionError {
    span.error("the expression is nested too deeply").help("write `x in [..]` for long lists")
}
